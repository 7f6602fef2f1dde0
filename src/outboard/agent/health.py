"""Whether the GPUs are well, as NVML tells it, and their figures for those who watch.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import outboard
from outboard.agent.driver import OUR_NOTE, Driver
from outboard.agent.elf import note_owners
from outboard.agent.isolation import spawn
from outboard.model.node import Device

log = logging.getLogger("outboard.agent.health")

READ_EVERY_S = 5.0
RESTART_AFTER_S = 60.0
_LONGEST_LINE_BYTES = 256 * 1024
# What NVIDIA's list of XIDs calls the GPU's own failures; the others are, most likely, a program's.
_GRAVE = {
    46: "the GPU stopped processing",
    48: "an uncorrectable memory error",
    62: "its power controller halted",
    64: "broken rows of its memory could not be replaced",
    74: "an NVLink error",
    79: "it has fallen off the bus",
    95: "an uncontained memory error",
    119: "its system processor does not answer",
    120: "its system processor failed",
    140: "an unrecovered memory error",
}
FIGURES = (
    *("temperature_c", "power_w", "utilization_percent", "memory_used_bytes"),
    *("memory_free_bytes", "ecc_uncorrected", "mig"),
)


def nvml_of(driver: Driver) -> str | None:
    """The NVML that belongs to a driver: it lies beside it. Never our own."""
    path = os.path.join(os.path.dirname(driver.path), "libnvidia-ml.so.1")
    if not os.path.exists(path) or OUR_NOTE in note_owners(path):
        return None
    return path


class DeviceHealth:
    """The newest reading of each device. `changed` is called when one breaks or heals."""

    def __init__(self, devices: Sequence[Device], changed: Callable[[], None]) -> None:
        self._devices = list(devices)
        self._changed = changed
        self._known: set[int] = set()
        self._failed: dict[int, str] = {}
        self._readings: dict[int, Mapping[str, object]] = {}
        self._reasons: dict[int, str] = {device.index: "" for device in devices}

    def report(self) -> list[dict[str, object]]:
        """Every device, as the agent's report has it; what is not known is null."""
        return [
            {
                "index": device.index,
                "healthy": not self._reasons[device.index],
                "reason": self._reasons[device.index],
                **{name: self._readings.get(device.index, {}).get(name) for name in FIGURES},
            }
            for device in self._devices
        ]

    def take(self, readings: Sequence[Mapping[str, object]]) -> None:
        """Take in a reading of every device, in their order."""
        before = dict(self._reasons)
        for device, reading in zip(self._devices, readings, strict=True):
            index = device.index
            if reading["found"] and not reading["lost"]:
                self._known.add(index)
            self._readings[index] = reading
            self._note_event(index, reading.get("xid"))
            trouble = _trouble(reading, known=index in self._known)
            self._reasons[index] = trouble or self._failed.get(index, "")
        for index, reason in self._reasons.items():
            if reason and reason != before[index]:
                log.error("GPU %d is not well: %s", index, reason)
            elif before[index] and not reason:
                log.info("GPU %d is well again", index)
        if before != self._reasons:
            self._changed()

    def _note_event(self, index: int, xid: object) -> None:
        """A GPU that failed is not trusted again before somebody has looked: at the next start."""
        if not isinstance(xid, int):
            return
        if xid in _GRAVE:
            self._failed[index] = f"XID {xid}: {_GRAVE[xid]}; reset it and restart its agent"
        else:
            log.warning("GPU %d: XID %d, of a program most likely", index, xid)


class Reader:
    """The process that reads NVML, started again when it ends."""

    def __init__(self, library: str, devices: Sequence[Device], health: DeviceHealth) -> None:
        uuids = [device.uuid for device in devices]
        self._words = [
            sys.executable,
            "-m",
            "outboard.agent.nvml",
            library,
            str(READ_EVERY_S),
            *uuids,
        ]
        self._health = health
        self._loop = asyncio.get_running_loop()
        self._pid = 0
        self._pidfd = -1
        self._pipe = -1
        self._partial = b""
        self._restart: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start reading."""
        self._restart = None
        ours, theirs = os.pipe()
        try:
            self._pid = spawn(self._words, _environment(), None, theirs)
        finally:
            os.close(theirs)
        os.set_blocking(ours, False)
        self._pipe, self._partial = ours, b""
        self._pidfd = os.pidfd_open(self._pid)
        self._loop.add_reader(self._pipe, self._on_line)
        self._loop.add_reader(self._pidfd, self._on_end)

    def close(self) -> None:
        """End it."""
        if self._restart is not None:
            self._restart.cancel()
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._reap()

    def _on_line(self) -> None:
        try:
            data = os.read(self._pipe, 65536)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._pipe)
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > _LONGEST_LINE_BYTES:
            self._partial = b""
        for line in lines:
            if not line.startswith(b"["):
                log.warning("%s", line[:400].decode("utf-8", "replace"))
                continue
            try:
                self._health.take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                log.error("a reading of NVML is not ours: %r", error)

    def _on_end(self) -> None:
        self._reap()
        log.warning("nothing reads NVML; again in %.0f s", RESTART_AFTER_S)
        self._restart = self._loop.call_later(RESTART_AFTER_S, self.start)

    def _reap(self) -> None:
        self._on_line()  # its last words, most likely why it ended
        for descriptor in (self._pipe, self._pidfd):
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self._pidfd = self._pipe = -1
        os.waitpid(self._pid, 0)


def _trouble(reading: Mapping[str, object], *, known: bool) -> str:
    """Why nothing may be placed on a device; empty where it is well, or nothing is known."""
    if reading["lost"] or (known and not reading["found"]):
        return "it has fallen off the bus: NVML cannot reach it any more"
    errors = reading.get("ecc_uncorrected")
    if isinstance(errors, int) and errors > 0:
        plural = "" if errors == 1 else "s"
        return f"{errors} uncorrectable memory error{plural} since its driver started"
    if reading.get("remap_failed"):
        return "broken rows of its memory could not be replaced"
    return ""


def _environment() -> dict[str, str]:
    """What the reader needs: this package, and what tells the software GPU what it is."""
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    environment["PYTHONPATH"] = str(Path(outboard.__file__).parent.parent)
    passed = {name: value for name, value in os.environ.items() if name.startswith("SOFTGPU_")}
    return environment | passed
