"""The client service without systemd: programs that know nothing of Outboard have GPUs.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.harness import HANG_S, Native, Pool, eventually, kill
from tests.integration.service_machine import Machine

PASS = "matrixMul: Result = PASS"
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user: run as root")


@pytest.fixture
def machine(native: Native, own_pool: Pool) -> Iterator[Machine]:
    """A machine whose service has its session for nine seconds: a twentieth of what users get."""
    own_pool.options.update(OUTBOARD_LEASE="9s")
    with Machine(native, own_pool) as made:
        yield made


def sessions(machine: Machine) -> list[str]:
    return [session["id"] for session in machine.pool.json("sessions")["sessions"]]


def test_a_program_without_any_variable_finds_the_gpus(machine: Machine) -> None:
    with machine.service("-n", "1", "-p", "0.25"):
        assert machine.outboard("service", "wait").returncode == 0
        outcome = machine.program("matrixMul")
        assert PASS in outcome.stdout, outcome.describe()
        assert outcome.stderr == ""


@NEEDS_ROOT
def test_every_user_of_the_machine_has_them(machine: Machine) -> None:
    with machine.service():
        machine.state("active")
        outcome = machine.program("matrixMul", "setpriv", "--reuid=65534", "--clear-groups")
        assert PASS in outcome.stdout, outcome.describe()


@NEEDS_ROOT
def test_a_private_service_is_for_its_user_alone(machine: Machine) -> None:
    with machine.service("--for-user", "nobody"):
        machine.state("active")
        other = machine.program("matrixMul", "setpriv", "--reuid=1", "--clear-groups")
        assert other.returncode != 0
        assert "the GPU service here is for another user" in other.stderr
        own = machine.program("matrixMul", "setpriv", "--reuid=65534", "--clear-groups")
        assert PASS in own.stdout, own.describe()


def test_no_file_that_others_read_holds_a_secret(machine: Machine) -> None:
    with machine.service() as service:
        machine.state("active")
        run = Path(f"/proc/{service.pid}/root/run/outboard")
        root, private = run / "default", run / "private/default"
        # The namespace's own view of it; the folder outside is another one.
        listing = machine.outboard("status").stdout
        assert "this machine's" in listing
        readable = {path.name: path.stat().st_mode & 0o777 for path in root.iterdir()}
        assert readable == {"session.json": 0o644, "sock": 0o666}
        assert private.stat().st_mode & 0o777 == 0o700
        lease = (private / "lease.json").read_text(encoding="utf-8")
        public = (root / "session.json").read_text(encoding="utf-8")
        assert "holder" in lease
        assert not {"grant", "key", "holder"} & set(public.replace('"', " ").split())


@NEEDS_ROOT
def test_what_a_user_copies_of_it_is_worth_nothing_on_another_machine(machine: Machine) -> None:
    with machine.service(), Machine(machine.native, machine.pool) as other:
        machine.state("active")
        as_nobody = ["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c"]
        every = "cd /run && find outboard user -type f -readable -exec tar -cf - {} +"
        taken = subprocess.run(
            machine.inside([*as_nobody, every]), capture_output=True, timeout=HANG_S, check=False
        )
        # The other machine's root puts them where programs there look, and may reach the pool.
        subprocess.run(
            other.inside(["tar", "-xf", "-", "-C", "/run"]),
            input=taken.stdout,
            timeout=HANG_S,
            check=True,
        )
        found = subprocess.run(
            other.inside(["ls", "/run/outboard/default"]),
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout == "session.json\n"
        outcome = other.program("matrixMul")
        assert outcome.returncode != 0
        assert "the GPU service of this machine is not running" in outcome.stderr
        assert PASS in machine.program("matrixMul").stdout, "its own programs have GPUs"


def test_a_restart_takes_the_session_over_and_a_program_runs_through_it(machine: Machine) -> None:
    with machine.service("-p", "0.25") as first:
        machine.state("active")
        before = sessions(machine)
        with machine.programs("longLoop") as program:
            program.read_until("READY")
            assert first.signal(signal.SIGTERM).returncode == 0
            assert sessions(machine) == before
            with machine.service("-p", "0.25"):
                machine.state("active")
                assert sessions(machine) == before
                assert PASS in machine.program("matrixMul").stdout
                assert program.process.poll() is None


def test_a_killed_service_is_taken_over_as_well(machine: Machine) -> None:
    with machine.service("-p", "0.25") as first:
        machine.state("active")
        before = sessions(machine)
        kill(first.pid)
        first.running.process.wait(timeout=30)
        refused = machine.program("matrixMul")
        assert "the GPU service of this machine is not running" in refused.stderr
        with machine.service("-p", "0.25"):
            machine.state("active")
            assert sessions(machine) == before
            assert PASS in machine.program("matrixMul").stdout


def test_a_service_that_never_comes_back_loses_its_session(machine: Machine) -> None:
    with machine.service() as service:
        machine.state("active")
        kill(service.pid)
        eventually("the lease has run out", lambda: not sessions(machine))


def test_an_idle_service_gives_its_gpus_back_and_a_program_gets_them_again(
    machine: Machine,
) -> None:
    with machine.service("--idle", "1s"):
        machine.state("standby")
        assert sessions(machine) == []
        outcome = machine.program("matrixMul")
        assert PASS in outcome.stdout, outcome.describe()
        assert outcome.stderr == ""


def test_a_used_service_is_never_idle(machine: Machine) -> None:
    with machine.service("--idle", "1s"):
        machine.state("active")
        with machine.programs("longLoop") as program:
            program.read_until("READY")
            eventually(
                "the service was unused for longer than it would wait",
                lambda: machine.status()["programs"] == 1,
            )
            assert machine.state("active")["unused_s"] is None
        machine.state("standby")


def test_a_pool_that_comes_late_is_found_by_itself(machine: Machine) -> None:
    machine.options["OUTBOARD_POOL"] = f"unix:{machine.pool.folder}/run/pool.sock"
    with machine.service("--longest-pause", "1s", "--wake-timeout", "2s"):
        machine.state("waiting")
        refused = machine.program("matrixMul")
        assert "waiting up to 2 s for a GPU" in refused.stderr
        assert "the GPU service has no GPU" in refused.stderr
        assert machine.pool.call("gpus").returncode == 0
        machine.state("active")
        assert PASS in machine.program("matrixMul").stdout


def test_a_pool_that_was_killed_is_found_again(machine: Machine) -> None:
    with machine.service("--longest-pause", "1s"):
        before = machine.state("active")["session"]
        kill(machine.pool.pid())
        eventually(
            "the service has another session",
            lambda: (
                machine.status().get("session") not in (None, before)
                and machine.status()["state"] == "active"
            ),
        )
        assert PASS in machine.program("matrixMul").stdout


def test_what_no_retry_cures_ends_the_service(machine: Machine) -> None:
    with machine.service("-m", "1") as service:
        outcome = service.running.finish()
        assert outcome.returncode == 78
        assert "MiB" in outcome.stderr


def test_ctrl_c_in_the_foreground_releases(machine: Machine) -> None:
    with machine.service() as service:
        machine.state("active")
        assert service.signal(signal.SIGINT).returncode == 0
        assert sessions(machine) == []
