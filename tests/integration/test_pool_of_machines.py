"""From two machines on: a user's programs on other machines' GPUs, and what may fail on the way.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import HANG_S, Direct, Native, eventually, expect_same
from tests.integration.pool_of_machines import PoolOfMachines


@pytest.fixture(scope="module")
def machines(native: Native) -> Iterator[PoolOfMachines]:
    folder = Path(tempfile.mkdtemp(prefix="ob-"))  # short: a socket's path has 107 bytes
    addresses = dict.fromkeys(("controller", "gpu1", "gpu2"), "127.0.0.1")
    made = PoolOfMachines(native, folder, addresses, devices=2)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


def test_a_program_runs_on_another_machines_gpu(machines: PoolOfMachines, native: Native) -> None:
    outcome = machines.call("run", "-n", "1", "-p", "0.5", "--", native.program("matrixMul"))
    assert outcome.returncode == 0, outcome.describe()
    assert "on gpu1 (" in outcome.stderr or "on gpu2 (" in outcome.stderr
    assert machines.json("sessions")["sessions"] == []
    assert all(device["granted_bytes"] == 0 for device in machines.json("gpus")["devices"])


@pytest.mark.parametrize("kind", ["static", "shared"])
def test_the_cuda_runtime_has_variables_of_its_own_on_devices_of_both_servers(
    machines: PoolOfMachines, native: Native, kind: str
) -> None:
    outcome = machines.call("run", "-n", "3", "--", native.program("perDeviceState", kind))
    assert outcome.returncode == 0, outcome.describe()
    assert "devices: 3\nperDeviceState: Result = PASS" in outcome.stdout
    assert "on gpu1 (" in outcome.stderr
    assert "on gpu2 (" in outcome.stderr


def test_what_a_program_used_is_in_the_accounts(machines: PoolOfMachines, native: Native) -> None:
    before = {line["process"] for line in machines.json("usage", "--by", "process")["used"]}
    outcome = machines.call("run", "-n", "1", "--", native.program("matrixMul"))
    assert outcome.returncode == 0, outcome.describe()

    def line() -> Any:
        lines = machines.json("usage", "--by", "session,uid,process")["used"]
        found = [one for one in lines if one["process"] not in before]
        return found[0] if found and found[0]["busy_us"] and found[0]["calls"] > 10 else None

    used = eventually("its use is known", line)
    assert used["process"].endswith(" matrixMul")
    assert int(used["uid"]) == os.getuid()
    # Its matrices; context and module come on top.
    assert used["peak_bytes"] > 3 * 320 * 320 * 4
    assert 0 < used["busy_us"] < 1e6 * HANG_S
    (mine,) = machines.json("usage", "--by", "user")["used"]
    assert mine["calls"] >= used["calls"]
    shown = machines.run_on("client", "usage", "--by", "user").stdout
    assert "BUSY-HOURS" in shown
    assert str(mine["calls"]) in shown


def test_copies_arrive_between_devices_of_both_servers(
    machines: PoolOfMachines, native: Native
) -> None:
    outcome = machines.call("run", "-n", "3", "--", native.program("copiesAcrossDevices"))
    assert outcome.returncode == 0, outcome.describe()
    assert "devices: 3\ncopiesAcrossDevices: Result = PASS" in outcome.stdout
    assert "on gpu1 (" in outcome.stderr
    assert "on gpu2 (" in outcome.stderr


def test_cupy_computes_on_devices_of_both_servers(
    machines: PoolOfMachines, direct: Direct, tmp_path: Path
) -> None:
    python = Path(sys.prefix) / "bin/python"
    program = Path(__file__).parent / "frameworks/cupy_devices.py"
    directly, remotely = tmp_path / "direct", tmp_path / "remote"
    three = {"SOFTGPU_DEVICES": "3", "CUPY_CACHE_DIR": str(tmp_path / "cache")}
    expected = direct.run(python, program, directly, results=directly, extra=three)
    assert expected.returncode == 0, expected.describe()
    outcome = machines.call("run", "-n", "3", "--", python, program, remotely)
    assert outcome.returncode == 0, outcome.describe()
    assert outcome.stdout == expected.stdout == "PASS on 3 devices\n"
    assert "on gpu1 (" in outcome.stderr
    assert "on gpu2 (" in outcome.stderr
    assert expected.results
    expect_same(remotely.read_bytes(), expected.results)


def test_volumes_and_arrays_arrive_between_devices_of_both_servers(
    machines: PoolOfMachines, native: Native, direct: Direct, tmp_path: Path
) -> None:
    program = native.program("peerMemory", "driver")
    directly, remotely = tmp_path / "direct", tmp_path / "remote"
    two = {"SOFTGPU_DEVICES": "2"}
    expected = direct.run(program, "--out", directly, results=directly, extra=two)
    assert expected.returncode == 0, expected.describe()
    # The first device of each server.
    words: list[str | Path] = ["env", "CUDA_VISIBLE_DEVICES=0,2", program, "--out", remotely]
    outcome = machines.call("run", "-n", "3", "--", *words)
    assert outcome.returncode == 0, outcome.describe()
    assert "on gpu1 (" in outcome.stderr
    assert "on gpu2 (" in outcome.stderr
    assert expected.results
    expect_same(remotely.read_bytes(), expected.results)


def test_a_program_outlives_controller_and_agents_killed_with_9(
    machines: PoolOfMachines, native: Native
) -> None:
    with machines.running("-n", "1", "--", native.program("longLoop")) as program:
        program.read_until("READY")
        (session,) = machines.json("sessions")["sessions"]
        node = session["devices"][0]["node"]
        machines.controller.end(signal.SIGKILL)
        machines.agents[node].end(signal.SIGKILL)
        machines.agents[node].start()
        machines.controller.start()
        eventually("the worker is adopted", lambda: "adopted" in machines.agents[node].log())

        def known() -> bool:
            done = machines.call("sessions", "--json")
            return done.returncode == 0 and session["id"] in done.stdout

        eventually("the ledger knows the session", known)
        assert program.process.poll() is None
        assert machines.call("sessions", "end", session["id"]).returncode == 0
        assert program.read_until("ERROR") == "ERROR 46 cudaErrorDevicesUnavailable"
        assert program.finish().returncode == 1
    assert machines.json("sessions")["sessions"] == []


def test_a_killed_launchers_session_ends_with_its_program(
    machines: PoolOfMachines, native: Native
) -> None:
    with machines.running("-n", "1", "--", native.program("longLoop")) as program:
        program.read_until("READY")
    eventually(
        "its workers have ended", lambda: not [*machines.workers("gpu1"), *machines.workers("gpu2")]
    )


def test_a_session_spans_two_servers(machines: PoolOfMachines, native: Native) -> None:
    script = "import json, os; print(len(json.load(open(os.environ['OUTBOARD_SESSION']))['nodes']))"
    outcome = machines.call("run", "-n", "3", "--", "python3", "-c", script)
    assert (outcome.returncode, outcome.stdout.strip()) == (0, "2"), outcome.describe()


def test_another_users_sessions_are_nobody_elses(machines: PoolOfMachines) -> None:
    outcome = machines.call("sessions", "end", "s-0123456789ab")
    assert outcome.returncode == 125
    assert "there is no session" in outcome.stderr


def test_the_way_to_a_server_is_measured_by_a_program(machines: PoolOfMachines) -> None:
    before = {one["id"] for one in machines.json("sessions")["sessions"]}
    for node in ("gpu1", "gpu2"):
        measured = machines.json("netperf", node, "--short")
        assert (measured["node"], measured["protection"]) == (node, "TLS 1.3")
        assert 0 < measured["round_trip_p50_us"] <= measured["round_trip_p99_us"]
        assert measured["to_node_bytes_per_s"] > 0 < measured["from_node_bytes_per_s"]
    # That of a launcher which a test killed may still have its lease.
    assert {one["id"] for one in machines.json("sessions")["sessions"]} <= before
    outcome = machines.call("netperf", "gpu9")
    assert outcome.returncode == 125
    assert "its servers are: gpu1, gpu2" in outcome.stderr


def test_the_doctor_finds_nothing_wrong_with_a_client(machines: PoolOfMachines) -> None:
    told = machines.json("doctor")
    states = {one["check"]: one["state"] for one in told["checks"]}
    assert "fail" not in states.values(), told
    assert states["protocol"] == "pass", told
    assert states["bandwidth"] in ("pass", "warn"), told
