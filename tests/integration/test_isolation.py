"""Workers that do what programs make them do are cut off: from each other, from the machine.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.harness import Native, Pool, eventually

ROOT = Path(__file__).parents[2]
_KEEPER = ROOT / "tests/machines/keeper.py"
_NOBODY = 65534
_BECOME_NOBODY = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")


def status(pid: int) -> dict[str, str]:
    """The fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def log_of(pool: Pool) -> str:
    """What the pool has logged."""
    return (pool.folder / ".local/state/outboard/pool.log").read_text()


def worker_of(pool: Pool, session: str, nth: int = 0) -> int:
    """The worker that this session's nth program has, as the pool's log names it."""

    def look() -> int | None:
        said = [line for line in log_of(pool).splitlines() if f"session {session}: worker " in line]
        return int(said[nth].partition(": worker ")[2].split()[0]) if len(said) > nth else None

    return eventually(f"a worker of {session}", look)


def only_session(pool: Pool) -> str:
    """The pool's one session."""
    (session,) = pool.json("sessions")["sessions"]
    return str(session["id"])


def isolated(pid: int) -> int:
    """The user of a worker that has given up what workers give up."""
    fields = status(pid)
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    (uid,) = set(fields["Uid"].split())
    return int(uid)


# A container's root may lack the right to mount.
_MAY = os.geteuid() == 0 and not subprocess.call(["unshare", "--mount", "true"])
as_root = pytest.mark.skipif(not _MAY, reason="a pool that is root does this")
KEEPER = ("/usr/bin/python3", _KEEPER)


@as_root
def test_each_session_has_a_user_of_its_own(own_pool: Pool) -> None:
    with own_pool.running(*KEEPER, options=("-n", "1", "-p", "0.25")) as first:
        first.read_until("READY")
        one = only_session(own_pool)
        mine = worker_of(own_pool, one)
        with own_pool.running(*KEEPER, options=("-n", "1", "-p", "0.25")) as second:
            second.read_until("READY")
            sessions = {str(each["id"]) for each in own_pool.json("sessions")["sessions"]}
            other = worker_of(own_pool, (sessions - {one}).pop())
            assert 1000 < isolated(mine) != isolated(other) > 1000
            assert not (Path(f"/proc/{mine}/root") / "home").exists()
            for program in (first, second):
                outcome = program.finish("\n\n")
                assert "PASS" in outcome.stdout, outcome.describe()


@as_root
def test_programs_of_a_session_share_its_user(own_pool: Pool) -> None:
    words = " ".join(str(word) for word in KEEPER)
    script = f"{words} < one & {words} < two & wait; echo ENDED"
    for name in ("one", "two"):
        os.mkfifo(own_pool.folder / name)
    with own_pool.running("bash", "-c", f"cd {own_pool.folder}; {script}") as shell:
        with (own_pool.folder / "one").open("w"), (own_pool.folder / "two").open("w"):
            shell.read_until("READY")
            shell.read_until("READY")
            session = only_session(own_pool)
            users = {isolated(worker_of(own_pool, session, nth)) for nth in (0, 1)}
        shell.read_until("ENDED")
    assert len(users) == 1


def test_workers_of_an_ordinary_user_see_no_files_of_his(native: Native, tmp_path: Path) -> None:
    pool = Pool(native, tmp_path)
    if os.geteuid() == 0:
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o755)
        os.chown(tmp_path, _NOBODY, _NOBODY)
        pool = _AsNobody(native, tmp_path)
        reads = ["test", "-r", str(native.worker), "-a", "-r", str(ROOT / "src")]
        if subprocess.run([*_BECOME_NOBODY, *reads], check=False).returncode:
            pytest.skip("the checkout lies where nobody but root can read it")
    try:
        with pool.running(*KEEPER) as program:
            program.read_until("READY")
            worker = worker_of(pool, only_session(pool))
            assert isolated(worker) == (os.geteuid() or _NOBODY)
            outcome = program.finish("\n")
            assert "PASS" in outcome.stdout, outcome.describe()
        assert "isolation that workers lack: workers share the agent's user" in log_of(pool)
    finally:
        pool.stop()


def test_isolation_that_is_switched_off_is_off(native: Native, tmp_path: Path) -> None:
    pool = Pool(native, tmp_path, {"OUTBOARD_ISOLATION": "off"})
    try:
        with pool.running(*KEEPER) as program:
            program.read_until("READY")
            fields = status(worker_of(pool, only_session(pool)))
            assert fields["Seccomp"] == "0"
            assert fields["NoNewPrivs"] == "1"
            outcome = program.finish("\n")
            assert "PASS" in outcome.stdout, outcome.describe()
    finally:
        pool.stop()


class _AsNobody(Pool):
    """A pool of a user who is not root."""

    def command(self, *words: str | Path) -> list[str | Path]:
        python = ("env", f"PYTHONPATH={ROOT / 'src'}", "/usr/bin/python3", "-sm", "outboard")
        return [*_BECOME_NOBODY, *python, *words]
