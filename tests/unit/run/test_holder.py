"""A session that outlives the command that asked for it, until somebody releases it.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from tests.unit.conftest import Outboard, eventually


def requested(outboard: Outboard, *words: str) -> str:
    done = outboard("request", "-m", "100", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def held(outboard: Outboard) -> list[dict[str, object]]:
    listed = json.loads(outboard("sessions", "--json").stdout)["sessions"]
    assert isinstance(listed, list)
    return listed


def holder_of(outboard: Outboard, session: str) -> int:
    record = json.loads((outboard.runtime / f"held/{session}.json").read_text())
    return int(record["pid"])


def test_a_session_is_used_as_often_as_wanted_and_then_released(outboard: Outboard) -> None:
    session = requested(outboard)
    for _ in range(2):
        done = outboard("exec", "--", *outboard.program, "ping")
        assert (done.returncode, done.stdout.splitlines()[1]) == (0, "pong"), done.stderr
    assert [one["id"] for one in held(outboard)] == [session]
    assert outboard("release").stdout == f"{session} is released\n"
    assert held(outboard) == []
    assert outboard.session_files() == []
    assert list((outboard.runtime / "held").iterdir()) == []


def test_the_newest_is_meant_unless_one_is_named(outboard: Outboard) -> None:
    first, second = requested(outboard), requested(outboard)
    script = ["python3", "-c", "import os; print(os.environ['OUTBOARD_SESSION'])"]
    assert second in outboard("exec", "--", *script).stdout
    assert first in outboard("exec", first, "--", *script).stdout
    assert outboard("release", first).returncode == 0
    assert [one["id"] for one in held(outboard)] == [second]
    done = outboard("exec", first, "--", "true")
    assert (done.returncode, f"{first} is not held by this user" in done.stderr) == (125, True)
    outboard("release", "--all")
    assert held(outboard) == []


def test_a_shell_takes_a_sessions_variables(outboard: Outboard) -> None:
    session = requested(outboard)
    made = outboard("env")
    script = f"{made.stdout}\n" + " ".join(outboard.program) + " ping"
    done = subprocess.run(
        ["bash", "-c", script],
        env=outboard.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[1] == "pong", done.stderr
    assert json.loads(outboard("env", "--json").stdout)["session"] == session
    outboard("release")


def test_a_killed_holder_leaves_nothing_behind(outboard: Outboard) -> None:
    session = requested(outboard)
    os.kill(holder_of(outboard, session), signal.SIGKILL)
    eventually(lambda: held(outboard) == [], "its session has ended")
    done = outboard("exec", "--", "true")
    assert (done.returncode, "no session is held by this user" in done.stderr) == (125, True)


def test_a_refused_request_says_why_and_holds_nothing(outboard: Outboard) -> None:
    done = outboard("request", "-n", "9")
    assert done.returncode == 125
    assert "this pool has 1 GPU" in done.stderr
    assert held(outboard) == []


@pytest.mark.parametrize("words", [["exec"], ["exec", "--"], ["exec", "true"]])
def test_exec_needs_a_program(outboard: Outboard, words: list[str]) -> None:
    done = outboard(*words)
    assert (done.returncode, "which program?" in done.stderr) == (125, True)


def test_a_full_pool_is_said_while_it_is_waited_for(outboard: Outboard) -> None:
    session = requested(outboard)
    outboard("release", session)
    whole = outboard("request")
    assert whole.returncode == 0
    done = outboard("request", "--wait", "1.5s")
    assert done.returncode == 124, done.stderr
    assert "waiting" in done.stderr
    outboard("release", "--all")
