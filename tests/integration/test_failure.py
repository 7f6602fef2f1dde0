"""What goes wrong ends what it must end, at once, and leaves nothing behind.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from tests.integration.harness import (
    Native,
    Pool,
    alive,
    clean_environment,
    eventually,
    kill,
    run_program,
)


def warm_worker(pool: Pool) -> int:
    """The one worker that an idle pool keeps; a program that starts now gets it."""
    assert pool.call("gpus").returncode == 0
    (worker,) = eventually(
        "one worker is warm",
        lambda: found if len(found := pool.workers()) == 1 else None,
    )
    return worker


def test_a_wild_store_ends_its_own_context_and_nothing_else(native: Native, pool: Pool) -> None:
    wild, after = native.program("wildStore"), native.program("matrixMul")
    script = f"{wild} || exit 1\n{after} || exit 2\nexit 0\n"
    outcome = pool.run("bash", stdin=script)
    assert outcome.returncode == 0, outcome.describe()
    assert "the wild store gives 700" in outcome.stdout
    assert "matrixMul: Result = PASS" in outcome.stdout


def test_a_refused_launch_leaves_the_process_usable(native: Native, pool: Pool) -> None:
    outcome = pool.run(native.program("refusedLaunch"))
    assert outcome.returncode == 0, outcome.describe()


def test_a_killed_worker_is_an_error_at_once(native: Native, own_pool: Pool) -> None:
    worker = warm_worker(own_pool)
    with own_pool.running(native.program("longLoop")) as program:
        program.read_until("READY")
        assert alive(worker)
        kill(worker)
        error = program.read_until("ERROR")
        outcome = program.finish()
    assert error == "ERROR 46 cudaErrorDevicesUnavailable"
    assert outcome.returncode == 1, outcome.describe()
    lines = [line for line in outcome.stderr.splitlines() if "DEVICE_UNAVAILABLE" in line]
    assert len(lines) == 1, outcome.describe()
    again = own_pool.run(native.program("matrixMul"))
    assert again.returncode == 0, again.describe()


def test_a_program_killed_with_9_leaves_no_worker(native: Native, own_pool: Pool) -> None:
    worker = warm_worker(own_pool)
    with own_pool.running(native.program("longLoop")) as program:
        pid = int(program.read_until("READY").split()[1])
        assert alive(worker)
        kill(pid)
        outcome = program.finish()
    assert outcome.returncode == 128 + 9, outcome.describe()
    eventually("its worker has ended", lambda: not alive(worker))
    eventually("its session is released", lambda: not own_pool.json("sessions")["sessions"])


def test_memory_of_a_killed_program_is_free_for_its_session(native: Native, own_pool: Pool) -> None:
    worker = warm_worker(own_pool)
    program = native.program("memoryLimit")
    script = f"""
    coproc HOLDER {{ exec {program} --hold-mib 300; }}
    while read -r line <&"${{HOLDER[0]}}"; do
      case $line in HOLDING*) break;; esac
    done
    holder=$HOLDER_PID
    kill -9 "$holder"; wait "$holder" 2>/dev/null
    echo KILLED; read -r _
    {program} --hold-mib 300 </dev/null; echo "afterwards: $?"
    """
    own_pool.folder.joinpath("script").write_text(script)
    options = ["-n", "1", "-m", "512"]
    with own_pool.running("bash", own_pool.folder / "script", options=options) as shell:
        shell.read_until("KILLED")
        eventually("its worker has ended", lambda: not alive(worker))
        outcome = shell.finish("\n")
    assert "afterwards: 0" in outcome.stdout, outcome.describe()


def test_forked_children_do_not_keep_a_killed_program_s_worker(
    native: Native, own_pool: Pool
) -> None:
    release = own_pool.folder / "release"
    worker = warm_worker(own_pool)
    with own_pool.running(native.program("forkedHolder"), "--release", release) as program:
        try:
            parent = int(program.read_until("READY").split()[1])
            eventually(
                "four children live",
                lambda: (
                    len([line for line in program.lines if line.startswith("CHILD")]) == 4
                    or program.read_until("CHILD") is None
                ),
            )
            said = [line.split() for line in program.lines if line.startswith("CHILD")]
            children = [int(words[1]) for words in said]
            assert [words[2] for words in said] == ["refused"] * 4
            kill(parent)
            eventually("its worker has ended", lambda: not alive(worker))
            assert all(alive(child) for child in children)
        finally:
            release.touch()
        eventually("the children have ended", lambda: not any(alive(child) for child in children))
        assert program.finish().returncode == 128 + 9
    again = own_pool.run(native.program("memoryLimit"))
    assert again.returncode == 0, again.describe()


def test_a_killed_launcher_leaves_its_program_running(native: Native, own_pool: Pool) -> None:
    release = own_pool.folder / "release"
    with own_pool.running(native.program("forkedHolder"), "--release", release) as program:
        try:
            pid = int(program.read_until("READY").split()[1])
            kill(program.process.pid)
            eventually("the launcher has ended", lambda: not alive(program.process.pid))
            assert alive(pid)
        finally:
            release.touch()
        eventually("the program has ended by itself", lambda: not alive(pid))
    eventually("its session is released", lambda: not own_pool.json("sessions")["sessions"])


@pytest.fixture
def closed_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_pool_that_does_not_answer_is_named_with_the_next_step(
    native: Native, own_pool: Pool, closed_port: int
) -> None:
    own_pool.options["OUTBOARD_POOL"] = f"https://127.0.0.1:{closed_port}"
    outcome = own_pool.run(native.program("vectorAdd"))
    assert outcome.returncode == 125, outcome.describe()
    assert outcome.stderr.startswith("outboard: ")
    assert f"127.0.0.1:{closed_port}" in outcome.stderr
    assert "Result" not in outcome.stdout


def session_file(folder: Path, port: int) -> Path:
    """A session whose server is a port of this machine."""
    document = {
        "version": 1,
        "session": "s-00000000",
        "form": "inline",
        "nodes": [{"name": "gone", "address": f"127.0.0.1:{port}", "tls": "none"}],
        "grant": "e30.AA",
        "key": "00" * 32,
        "devices": [
            {
                "node": 0,
                "index": 0,
                "uuid": "GPU-00000000-0000-0000-0000-000000000000",
                "name": "Software GPU",
                "share_bytes": 1 << 30,
            }
        ],
    }
    path = folder / "session.json"
    path.write_text(json.dumps(document))
    path.chmod(0o600)
    return path


def test_a_program_whose_server_is_gone_sees_no_device_and_says_why(
    native: Native, tmp_path: Path, closed_port: int
) -> None:
    environment = clean_environment(tmp_path) | {
        "LD_LIBRARY_PATH": str(native.shim),
        "OUTBOARD_SESSION": str(session_file(tmp_path, closed_port)),
    }
    outcome = run_program([native.program("vectorAddDriver", "driver")], environment)
    assert outcome.returncode == 1, outcome.describe()
    assert "CUDA_ERROR_NO_DEVICE" in outcome.stderr, outcome.describe()
    ours = [line for line in outcome.stderr.splitlines() if line.startswith("outboard: ")]
    assert len(ours) == 1, outcome.describe()
    assert f"127.0.0.1:{closed_port}" in ours[0]


def test_a_program_without_a_session_sees_no_device(native: Native, tmp_path: Path) -> None:
    environment = clean_environment(tmp_path) | {
        "LD_LIBRARY_PATH": str(native.shim),
        "OUTBOARD_SESSION": str(tmp_path / "absent.json"),
    }
    outcome = run_program([native.program("vectorAddDriver", "driver")], environment)
    assert outcome.returncode == 1, outcome.describe()
    assert "CUDA_ERROR_NO_DEVICE" in outcome.stderr
    assert len(re.findall(r"^outboard: ", outcome.stderr, re.MULTILINE)) == 1, outcome.describe()
