"""Reads the GPUs' figures from NVML, again and again: a process of its own, beside the agent.

SPDX-License-Identifier: Apache-2.0

    python -m outboard.agent.nvml LIBRARY EVERY_S UUID …

One line of JSON each time, on stdout: a list with an object for each UUID; what NVML does not tell
is null. An event that NVML tells of (an XID) makes the next line come at once. A process of its own
because a broken GPU can hold NVML's caller for minutes, and because the agent, which forks its
workers, has one thread. It ends when nobody reads any more.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from typing import TypeVar

NOT_FOUND = 6
GPU_IS_LOST = 15

_XID_EVENTS = 8

_UNCORRECTED, _SINCE_DRIVER_START = 1, 0
_SENSOR_OF_GPU = 0


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("device", ctypes.c_void_p),
        ("type", ctypes.c_ulonglong),
        ("data", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


Answer = TypeVar("Answer", ctypes.c_ulonglong, _Utilization, _Memory)


class Lost(Exception):
    """The device does not answer any more."""


class Nvml:
    """An initialised NVML; raises `OSError` where there is none, or it does not start."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        result = self._function("nvmlInit_v2")()
        if result:
            raise OSError(f"{path} does not start: error {result}")

    def read(self, uuid: str) -> dict[str, object]:
        """The figures of one device. `found` is False if NVML knows no such device."""
        device = ctypes.c_void_p()
        result = self._function("nvmlDeviceGetHandleByUUID")(uuid.encode(), ctypes.byref(device))
        try:
            if result == GPU_IS_LOST:
                raise Lost
            if result:
                return {"found": False, "lost": False}
            return {"found": True, "lost": False, **self._figures(device)}
        except Lost:
            return {"found": True, "lost": True}

    def watch(self, uuids: list[str]) -> Events | None:
        """The devices' critical errors from now on; None where this NVML tells of none."""
        events = ctypes.c_void_p()
        if self._function("nvmlEventSetCreate")(ctypes.byref(events)):
            return None
        devices = {}
        for uuid in uuids:
            device = ctypes.c_void_p()
            if not self._function("nvmlDeviceGetHandleByUUID")(
                uuid.encode(), ctypes.byref(device)
            ) and not self._function("nvmlDeviceRegisterEvents")(
                device, ctypes.c_ulonglong(_XID_EVENTS), events
            ):
                devices[device.value] = uuid
        return Events(self._function("nvmlEventSetWait_v2"), events, devices) if devices else None

    def _figures(self, device: ctypes.c_void_p) -> dict[str, object]:
        used = self._ask("nvmlDeviceGetUtilizationRates", device, _Utilization())
        memory = self._ask("nvmlDeviceGetMemoryInfo", device, _Memory())
        power = self._number("nvmlDeviceGetPowerUsage", device)
        return {
            "temperature_c": self._number("nvmlDeviceGetTemperature", device, _SENSOR_OF_GPU),
            "power_w": None if power is None else power / 1000,
            "utilization_percent": None if used is None else used.gpu,
            "memory_used_bytes": None if memory is None else memory.used,
            "memory_free_bytes": None if memory is None else memory.free,
            "ecc_uncorrected": self._number(
                "nvmlDeviceGetTotalEccErrors", device, _UNCORRECTED, _SINCE_DRIVER_START
            ),
            "remap_failed": self._remap_failed(device),
            "mig": self._mig(device),
        }

    def _number(self, name: str, device: ctypes.c_void_p, *more: int) -> int | None:
        found = self._ask(name, device, ctypes.c_ulonglong(), *more)
        return None if found is None else found.value

    def _ask(self, name: str, device: ctypes.c_void_p, answer: Answer, *more: int) -> Answer | None:
        """What a function writes to its last argument; None where it is not told."""
        result = self._function(name)(device, *more, ctypes.byref(answer))
        if result == GPU_IS_LOST:
            raise Lost
        return None if result else answer

    def _remap_failed(self, device: ctypes.c_void_p) -> bool | None:
        rows = [ctypes.c_uint() for _ in range(4)]
        result = self._function("nvmlDeviceGetRemappedRows")(device, *map(ctypes.byref, rows))
        return None if result else bool(rows[3].value)

    def _mig(self, device: ctypes.c_void_p) -> bool | None:
        now, later = ctypes.c_uint(), ctypes.c_uint()
        result = self._function("nvmlDeviceGetMigMode")(
            device, ctypes.byref(now), ctypes.byref(later)
        )
        return None if result else bool(now.value)

    def _function(self, name: str) -> Callable[..., int]:
        found: Callable[..., int] = getattr(self._library, name)
        return found


class Events:
    """Critical errors of devices, as NVML's event set tells them."""

    def __init__(
        self, wait: Callable[..., int], events: ctypes.c_void_p, devices: dict[int | None, str]
    ) -> None:
        self._wait = wait
        self._events = events
        self._devices = devices

    def wait(self, for_s: float) -> tuple[str, int] | None:
        """The next: the device's UUID and the XID; None if there is none in this time."""
        until_s = time.monotonic() + for_s
        event = _Event()
        if not self._wait(self._events, ctypes.byref(event), int(for_s * 1000)):
            uuid = self._devices.get(event.device)
            return None if uuid is None else (uuid, int(event.data))
        time.sleep(max(0.0, until_s - time.monotonic()))  # it may have failed at once
        return None


def main(words: list[str]) -> int:
    """Print readings until nobody reads them."""
    path, every_s, uuids = words[0], float(words[1]), words[2:]
    try:
        nvml = Nvml(path)
        events = nvml.watch(uuids)
        event: tuple[str, int] | None = None
        while True:
            told = dict([event] if event else [])
            readings = [{**nvml.read(uuid), "xid": told.get(uuid)} for uuid in uuids]
            os.write(1, json.dumps(readings).encode() + b"\n")
            if events is not None:
                event = events.wait(every_s)
            else:
                time.sleep(every_s)
    except (OSError, AttributeError) as error:
        if not isinstance(error, BrokenPipeError):
            print(f"NVML cannot be read: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
