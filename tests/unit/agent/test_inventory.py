"""Inventories: what is offered of a device, and workers that cannot say.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from outboard.agent.driver import Driver
from outboard.agent.inventory import find_devices, parse_inventory
from outboard.errors import InventoryFailed

MIB = 1 << 20
DRIVER = Driver("/driver", False, "a test")


def listing(count: int, *, software: bool = False) -> str:
    devices = [
        {
            "index": index,
            "uuid": f"GPU-{index}",
            "name": "GPU",
            "total_bytes": 81559 * MIB,
            "compute_capability": "9.0",
            "pci": "",
            "multiprocessors": 132,
            "context_bytes": 527 * MIB,
        }
        for index in range(count)
    ]
    head = {"protocol": "ab", "driver_version": 13000, "software": software}
    return "a line of the driver's own\n" + json.dumps({**head, "devices": devices})


def test_what_warm_workers_hold_is_not_offered() -> None:
    inventory = parse_inventory(listing(1), DRIVER, warm_workers=2)
    assert inventory.warm_devices == [0]
    assert inventory.devices[0].capacity_bytes == (81559 - 2 * 527) * MIB


def test_on_several_devices_warm_workers_hold_nothing() -> None:
    inventory = parse_inventory(listing(2), DRIVER, warm_workers=2)
    assert inventory.warm_devices == []
    assert [device.capacity_bytes for device in inventory.devices] == [81559 * MIB] * 2


@pytest.mark.parametrize(("software", "least_mib"), [(False, 1024), (True, 530)])
def test_the_least_share_holds_a_context(software: bool, least_mib: int) -> None:
    inventory = parse_inventory(listing(1, software=software), DRIVER, 1)
    assert inventory.devices[0].minimum_share_bytes == least_mib * MIB


def worker(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'no device' >&2; exit 1", "no device"),
        ("exit 3", "exit code 3"),
        ("kill -SEGV $$", "exit code -11"),
        ("echo", "cannot be read"),
        ("echo '{}'", "cannot be read"),
        ("echo '[]'", "cannot be read"),
    ],
)
def test_a_worker_that_cannot_say_is_quoted(tmp_path: Path, script: str, said: str) -> None:
    program = worker(tmp_path / "worker", script)
    driver = Driver(program, False, "a test")  # any file that exists
    with pytest.raises(InventoryFailed, match=said):
        find_devices(program, [driver], {}, 1)


def test_the_first_driver_with_devices_is_used_and_the_others_are_explained(
    tmp_path: Path,
) -> None:
    (tmp_path / "good").touch()
    (tmp_path / "empty").touch()
    (tmp_path / "list").write_text(listing(1))
    none = json.dumps({"protocol": "ab", "driver_version": 1, "software": False, "devices": []})
    script = f"case $2 in *good) cat {tmp_path}/list;; *) echo '{none}';; esac"
    program = worker(tmp_path / "worker", script)
    drivers = [
        Driver(str(tmp_path / name), False, "a test") for name in ("missing", "empty", "good")
    ]
    inventory, passed_over = find_devices(program, drivers, {"PATH": "/bin"}, 1)
    assert inventory.driver.path == str(tmp_path / "good")
    assert [why.split(" ", 1)[1] for why in passed_over] == ["does not exist", "has no devices"]
