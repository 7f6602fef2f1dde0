"""The embedded pool's life: one per folder, started once, ended when idle, never in the way.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import os
import signal
import time

from tests.unit.conftest import Outboard, eventually


def status(outboard: Outboard) -> dict[str, object]:
    answer = json.loads(outboard("pool", "status", "--json").stdout)
    assert isinstance(answer, dict)
    return answer


def test_launchers_that_start_together_share_one_pool(outboard: Outboard) -> None:
    runs = [outboard.start("run", "-m", "100", *outboard.program) for _ in range(6)]
    outputs = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0] * 6, outputs
    assert outboard.log().count("data plane on") == 1


def test_the_pool_ends_when_nobody_uses_it(outboard: Outboard) -> None:
    outboard.environment["OUTBOARD_POOL_IDLE"] = "0.3s"
    assert outboard("run", "sleep", "0.6").returncode == 0
    eventually(lambda: status(outboard)["running"] is False, "the pool ends")
    assert "nobody has used the pool" in outboard.log()
    assert outboard("run", "true").returncode == 0


def test_a_pool_that_is_kept_ends_when_it_is_stopped(outboard: Outboard) -> None:
    outboard.environment["OUTBOARD_POOL_IDLE"] = "0.2s"
    assert "ends:       when it is stopped" in outboard("up").stdout
    assert json.loads(outboard("up", "--json").stdout)["idle_s"] is None
    pid = status(outboard)["pid"]
    assert outboard("run", "sleep", "0.5").returncode == 0
    eventually(lambda: status(outboard)["sessions"] == 0, "the session is over")
    # Twice what would have ended it: nothing tells that it has not.
    deadline = time.monotonic() + 0.4
    eventually(lambda: time.monotonic() > deadline, "its time is up")
    assert status(outboard)["pid"] == pid
    outboard("pool", "stop")
    assert status(outboard)["running"] is False
    refused = outboard("up", OUTBOARD_POOL="https://gpus.example.org:7860")
    assert (refused.returncode, "names a pool elsewhere" in refused.stderr) == (125, True)


def test_a_killed_pool_is_replaced_and_its_files_are_removed(outboard: Outboard) -> None:
    outboard("gpus")
    (outboard.runtime / "sessions/s-dead.json").write_text("{}")
    os.kill(int(str(status(outboard)["pid"])), signal.SIGKILL)
    assert outboard("run", "true").returncode == 0
    assert outboard.session_files() == []


def test_programs_outlive_a_pool_that_is_terminated(outboard: Outboard) -> None:
    launcher = outboard.start("run", *outboard.program, "ping", "wait")
    assert launcher.stdout is not None
    launcher.stdout.readline()
    assert launcher.stdout.readline() == "pong\n"
    pid = int(str(status(outboard)["pid"]))
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: status(outboard)["running"] is False, "the pool ends")
    launcher.terminate()
    _, errors = launcher.communicate()
    assert launcher.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in errors


def test_a_warm_worker_that_dies_is_replaced(outboard: Outboard) -> None:
    outboard("gpus")
    eventually(lambda: status(outboard)["warm_workers"] == 1, "a worker is warm")
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and _is_worker(entry, str(outboard.native)):
            os.kill(int(entry), signal.SIGKILL)
    assert outboard("run", *outboard.program, "ping").returncode == 0
    eventually(lambda: status(outboard)["warm_workers"] == 1, "a worker is warm again")


def test_a_rebuilt_worker_is_used_at_once(outboard: Outboard) -> None:
    outboard("gpus")
    eventually(lambda: status(outboard)["warm_workers"] == 1, "a worker is warm")
    worker = outboard.native / "bin/outboard-worker"
    text = worker.read_text().replace('"environment": dict(os.environ)', '"environment": "rebuilt"')
    assert "rebuilt" in text
    worker.write_text(text)
    done = outboard("run", *outboard.program)
    assert json.loads(done.stdout.removeprefix("OUTW"))["environment"] == "rebuilt"


def test_no_warm_workers_is_a_choice(outboard: Outboard) -> None:
    outboard.environment["OUTBOARD_WARM_WORKERS"] = "0"
    assert outboard("run", *outboard.program, "ping").returncode == 0
    assert status(outboard)["warm_workers"] == 0


def test_what_cannot_be_isolated_is_in_the_log(outboard: Outboard) -> None:
    outboard("gpus")
    assert "isolation that workers lack: " in outboard.log()


def test_a_folder_that_cannot_be_written_is_said(outboard: Outboard) -> None:
    done = outboard("run", "true", OUTBOARD_RUNTIME_DIR="/proc/nowhere")
    assert done.returncode == 125
    assert "the runtime folder /proc/nowhere cannot be made" in done.stderr


def _is_worker(pid: str, native: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return native.encode() + b"/bin/outboard-worker" in file.read()
    except OSError:
        return False
