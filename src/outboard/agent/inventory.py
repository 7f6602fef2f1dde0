"""Asks a driver for its devices, by a worker in `--inventory` mode.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass

from outboard.agent.driver import Driver
from outboard.agent.isolation import raise_soft_limits
from outboard.errors import InventoryFailed
from outboard.model.node import Device
from outboard.units import GIB, MIB

INVENTORY_TIMEOUT_S = 60.0

# Below this a real GPU's context, its libraries' modules and workspaces leave nothing to work with.
_REAL_MINIMUM_SHARE_BYTES = GIB
_GRANULE_BYTES = 2 * MIB


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a driver has, and the wire protocol of the worker that asked."""

    driver: Driver
    protocol: str
    driver_version: int
    software: bool
    devices: tuple[Device, ...]

    @property
    def warm_devices(self) -> list[int]:
        """The devices on which warm workers make their context before they are claimed.

        Where there are several, a session may be granted any of them, and a context on each would
        cost memory of devices that are not its own: then workers only initialise the driver.
        """
        return [self.devices[0].index] if len(self.devices) == 1 else []


def take_inventory(
    worker: str, driver: Driver, environment: dict[str, str], warm_workers: int
) -> Inventory:
    """Run the worker once; raises `InventoryFailed` with its own words if it fails."""
    hint = f"try it by hand: {worker} --driver {driver.path} --inventory"
    try:
        done = subprocess.run(
            [worker, "--driver", driver.path, "--inventory"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=INVENTORY_TIMEOUT_S,
            env=environment,
            cwd="/",
            start_new_session=True,
            # Not `restrict`: no client is behind it, and NVIDIA's driver makes its device nodes
            # with a setuid program when it starts for the first time.
            preexec_fn=raise_soft_limits,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InventoryFailed(f"the worker cannot list {driver.path}: {error}", hint) from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        why = said[-1][:400] if said else f"exit code {done.returncode}"
        raise InventoryFailed(f"the worker cannot list {driver.path}: {why}", hint)
    try:
        return parse_inventory(done.stdout, driver, warm_workers)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InventoryFailed(
            f"the worker's list of {driver.path} cannot be read: {error!r}", hint
        ) from error


def parse_inventory(text: str, driver: Driver, warm_workers: int) -> Inventory:
    """The inventory in the worker's one line of JSON."""
    record = json.loads(text.strip().splitlines()[-1])
    software = bool(record["software"])
    items = record["devices"]
    contexts = warm_workers if len(items) == 1 else 0  # see `Inventory.warm_devices`
    return Inventory(
        driver=driver,
        protocol=str(record["protocol"]),
        driver_version=int(record["driver_version"]),
        software=software,
        devices=tuple(_device(item, software, contexts) for item in items),
    )


def find_devices(
    worker: str, drivers: list[Driver], environment: dict[str, str], warm_workers: int
) -> tuple[Inventory, list[str]]:
    """The first driver that has devices, and why those before it were passed over."""
    passed_over: list[str] = []
    for driver in drivers:
        if not os.path.exists(driver.path):
            passed_over.append(f"{driver.path} does not exist")
            continue
        try:
            inventory = take_inventory(worker, driver, environment, warm_workers)
        except InventoryFailed as error:
            passed_over.append(error.message)
            continue
        if inventory.devices:
            return inventory, passed_over
        passed_over.append(f"{driver.path} has no devices")
    raise InventoryFailed(
        "no driver of this machine has a GPU to offer: " + "; ".join(passed_over),
        "build the software GPU with `make build`, or repair the driver",
    )


def _device(item: dict[str, object], software: bool, warm_contexts: int) -> Device:
    total = _whole(item["total_bytes"])
    context = _whole(item["context_bytes"])
    with_context = -(-context // _GRANULE_BYTES) * _GRANULE_BYTES + _GRANULE_BYTES
    return Device(
        index=_whole(item["index"]),
        uuid=str(item["uuid"]),
        name=str(item["name"]),
        total_bytes=total,
        capacity_bytes=max(0, total - warm_contexts * context),
        context_bytes=context,
        minimum_share_bytes=with_context
        if software
        else max(with_context, _REAL_MINIMUM_SHARE_BYTES),
        compute_capability=str(item["compute_capability"]),
        pci=str(item.get("pci", "")),
        multiprocessors=_whole(item.get("multiprocessors", 0)),
    )


def _whole(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a whole number")
    return value
