"""Checks of the machine itself, each made to fail once.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path

import pytest

from outboard.doctor import machine
from outboard.doctor.place import Place
from outboard.doctor.registry import Check, Finding, examine
from outboard.errors import PoolUnreachable
from outboard.settings import Settings
from outboard.units import MIB


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("OUTBOARD_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("OUTBOARD_NATIVE_DIR", str(tmp_path / "native"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("LD_PRELOAD", "LD_LIBRARY_PATH", "OUTBOARD_SESSION"):
        monkeypatch.delenv(name, raising=False)
    shim = tmp_path / "native/lib/shim"
    shim.mkdir(parents=True)
    (shim / "libcuda.so.1").touch()
    return Place(Settings([]), str(tmp_path / "ctl"), str(tmp_path / "agent"))


def test_a_machine_as_it_should_be_passes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (4096, 4096))
    monkeypatch.setattr(machine, "free_bytes", lambda _folder: 10 << 30)
    looks = (machine.release, machine.native_files, machine.loader, machine.open_files)
    looks += (machine.disk, machine.leftovers, machine.local_driver)
    assert [look(place).state for look in looks] == ["pass"] * len(looks)


def test_a_missing_shim_fails_and_what_needs_it_is_not_looked_at(
    place: Place, tmp_path: Path
) -> None:
    (tmp_path / "native/lib/shim/libcuda.so.1").unlink()
    checks = [
        Check("native files", ("client",), machine.native_files),
        Check("loader", ("client",), machine.loader, "native files"),
        Check("elsewhere", ("agent",), machine.loader),
    ]
    found = [(one.check.name, one.finding.state) for one in examine(place, checks)]
    assert found == [("native files", "fail"), ("loader", "skip")]


def test_what_an_unreachable_pool_raises_is_a_failure_with_its_hint(place: Place) -> None:
    def look(_place: Place) -> Finding:
        raise PoolUnreachable("nobody answers", "start it")

    (result,) = examine(place, [Check("pool", ("client",), look)])
    assert result.finding == Finding("fail", "nobody answers", "start it")


def test_a_preloaded_driver_fails(place: Place) -> None:
    place.environment["LD_PRELOAD"] = "/usr/lib/libm.so /opt/other/libcuda.so.1"
    found = machine.loader(place)
    assert (found.state, found.fix) == ("fail", "unset LD_PRELOAD")


def test_another_driver_before_the_shim_fails_in_a_session(place: Place, tmp_path: Path) -> None:
    other, shim = tmp_path / "other", tmp_path / "native/lib/shim"
    other.mkdir()
    (other / "libcuda.so.1").touch()
    place.environment["LD_LIBRARY_PATH"] = f"{other}:{shim}"
    assert machine.loader(place).state == "pass"  # `outboard run` puts the shim in front
    place.environment["OUTBOARD_SESSION"] = "x"
    found = machine.loader(place)
    assert (found.state, found.fix) == ("fail", f"export LD_LIBRARY_PATH={shim}")
    place.environment["LD_LIBRARY_PATH"] = f"{shim}:{other}"
    assert machine.loader(place).state == "pass"


@pytest.mark.parametrize(
    ("soft", "hard", "state", "fix"),
    [
        (512, 4096, "warn", "ulimit -n 1024"),
        (64, 64, "fail", "raise nofile in /etc/security/limits.conf"),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, "pass", ""),
    ],
)
def test_too_few_open_files_are_told(
    place: Place, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, state: str, fix: str
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (soft, hard))
    found = machine.open_files(place)
    assert (found.state, found.fix) == (state, fix)


@pytest.mark.parametrize(("free", "state"), [(500 * MIB, "warn"), (50 * MIB, "fail")])
def test_a_full_disk_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    monkeypatch.setattr(machine, "free_bytes", lambda _folder: free)
    found = machine.disk(place)
    assert (found.state, found.fix.startswith("make room: df -h /")) == (state, True)


def test_what_a_killed_pool_left_is_told(place: Place, tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    (runtime / "sessions").mkdir(parents=True, mode=0o700)
    runtime.chmod(0o700)
    (runtime / "sessions/s-dead.json").touch()
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(os.fspath(runtime / "pool.sock"))
        gone.listen()
        assert machine.leftovers(place).state == "pass"
    found = machine.leftovers(place)
    assert (found.state, found.fix) == (
        "warn",
        f"rm {runtime}/pool.sock {runtime}/sessions/s-dead.json",
    )


def test_a_local_driver_is_mentioned(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cached", lambda _soname: ["/usr/lib/libcuda.so.1"])
    assert "this machine's own GPUs" in machine.local_driver(place).text
