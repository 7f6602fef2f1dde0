"""The README's path to a pool of two servers, typed as it is written there.

SPDX-License-Identifier: Apache-2.0

The four machines are this one in a network of its own, where their names are known, each with its
own host name, home and state folders.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.harness import (
    HANG_S,
    ROOT,
    Native,
    Outcome,
    clean_environment,
    eventually,
    run_program,
)

_ADDRESSES = {
    "ctl": "127.0.0.10",
    "gpu1": "127.0.0.11",
    "gpu2": "127.0.0.12",
    "laptop": "127.0.0.13",
}
_LINE = re.compile(r"(\w+)[#$] +(.+?)(?: +# .*)?")


def possible() -> bool:
    """Whether this user may make the namespaces here."""
    words = ["unshare", "--net", "--mount", "--uts", "true"]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def written() -> list[tuple[str, str]]:
    """The README's lines: on which machine, and what is typed."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.partition("<!-- tests/integration/test_readme.py")[2].split("```")[1]
    found = [_LINE.fullmatch(line) for line in block.strip().splitlines()]
    assert all(found), block
    return [(match[1], match[2]) for match in found if match]


class Machines:
    """One network, in which the machines' names are known; commands run on one of them."""

    def __init__(self, native: Native, folder: Path) -> None:
        self._native = native
        self._folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []
        hosts = "".join(f"{address} {name}\n" for name, address in _ADDRESSES.items())
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
        self._work = folder / "checkout"
        self._work.mkdir()
        (self._work / "build").symlink_to(native.root)
        script = (
            f"ip link set lo up && mount --bind {folder}/hosts /etc/hosts && echo READY"
            " && exec sleep infinity"
        )
        self._network = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", script], stdout=subprocess.PIPE
        )
        assert self._network.stdout is not None
        assert self._network.stdout.readline() == b"READY\n"

    def type(self, machine: str, line: str) -> Outcome:
        """Run a line to its end."""
        return run_program(self._words(machine, line), self._environment(machine))

    def start(self, machine: str, line: str) -> None:
        """Run a line in the background, as `&` does."""
        with (self._folder / f"{machine}.log").open("ab") as log:
            words = self._words(machine, f"exec {line}")
            environment = self._environment(machine)
            self._daemons.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))

    def log(self, machine: str) -> str:
        path = self._folder / f"{machine}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        for daemon in reversed(self._daemons):  # agents before the controller
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(HANG_S)
        self._network.kill()
        self._network.wait(HANG_S)
        assert self._network.stdout is not None
        self._network.stdout.close()

    def _words(self, machine: str, line: str) -> list[str]:
        inside = ["nsenter", "-t", str(self._network.pid), "--net", "--mount"]
        named = f"hostname {machine} && cd {self._work} && {line}"
        return [*inside, "unshare", "--uts", "sh", "-c", named]

    def _environment(self, machine: str) -> dict[str, str]:
        home = self._folder / f"home-{machine}"
        home.mkdir(exist_ok=True)
        return clean_environment(home) | {
            "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}",
            "OUTBOARD_NATIVE_DIR": str(self._native.root),
            "OUTBOARD_RUNTIME_DIR": str(self._folder / f"run-{machine}"),
            "OUTBOARD_CONTROLLER_STATE": str(self._folder / "controller"),
            "OUTBOARD_AGENT_STATE": str(self._folder / machine),
            "OUTBOARD_AGENT_RUNTIME": str(self._folder / f"{machine}.run"),
            "OUTBOARD_AGENT_LISTEN": f"{_ADDRESSES[machine]}:7861",
            "OUTBOARD_AGENT_DRIVER": "software",
        }


@pytest.fixture
def machines(native: Native) -> Iterator[Machines]:
    if not possible():
        pytest.skip("namespaces need root")
    folder = Path(tempfile.mkdtemp(prefix="ob-"))  # short: a socket's path has 107 bytes
    made = Machines(native, folder)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)


def test_the_readmes_pool_of_two_servers(machines: Machines) -> None:
    lines = written()
    assert [name for name in _ADDRESSES if name not in {machine for machine, _ in lines}] == []
    said: dict[str, Outcome] = {}
    for machine, line in lines:
        print(f"{machine}: {line}")
        if line.endswith("&"):
            machines.start(machine, line.removesuffix("&").rstrip())
            continue
        said[line] = typed(machines, machine, line)
    assert "gpu1" in said["outboard gpus"].stdout
    assert "gpu2" in said["outboard gpus"].stdout
    placed = said["outboard run -n 2 --spread --dry-run"].stdout
    assert "on gpu1, GPU 0 there" in placed
    assert "on gpu2, GPU 0 there" in placed


def typed(machines: Machines, machine: str, line: str) -> Outcome:
    """A line's outcome. What a daemon is still needed for that was just started is typed again."""
    wanted = ("gpu1  ready  ok", "gpu2  ready  ok") if line == "outboard nodes" else ()
    last: list[Outcome] = []

    def attempt() -> Outcome | None:
        last[:] = [machines.type(machine, line)]
        words = " ".join(last[0].stdout.split())
        missing = [text for text in wanted if " ".join(text.split()) not in words]
        return last[0] if last[0].returncode == 0 and not missing else None

    patient = line.startswith(("outboard login", "outboard nodes"))
    try:
        return eventually(line, attempt, guard_s=60.0 if patient else 0.0)
    except AssertionError as error:
        logs = "\n".join(machines.log(name) for name in _ADDRESSES)
        raise AssertionError(f"{machine}: {line}: {last[0].describe()}\n{logs}") from error
