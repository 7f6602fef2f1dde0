"""What programs did, as their workers count it in the share page: read, bounded, kept for reports.

SPDX-License-Identifier: Apache-2.0

A worker is not trusted: its record may hold anything, and can only make its own account wrong.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass, replace

USAGE_AT = 64 * 1024
USAGE_BYTES = 1024

_DEVICES = 16
_HEAD = struct.Struct("<4Q")
_ROWS = struct.Struct(f"<{4 * _DEVICES}Q")
_ROWS_AT = 8 * 8
_PROGRAM_AT = 8 * 72
_PROGRAM_BYTES = 64
# What a database's whole numbers hold.
_MOST = (1 << 62) - 1
# Programs that ended while no controller answered; what is older is not reported any more.
_MOST_ENDED = 16384


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """What a program did with one device of its session."""

    calls: int
    busy_us: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Use:
    """What a program did until now. `last_call_us` is None before its first call.

    `last_call_us` is of CLOCK_MONOTONIC, and now while a device works for it; `started_us` and
    `ended_us` are since 1970.
    """

    pid: int
    uid: int
    program: str
    started_us: int
    last_call_us: int | None
    devices: tuple[DeviceUse, ...]
    ended_us: int | None = None

    def ended(self, ended_us: int) -> Use:
        """The same at its end."""
        return replace(self, ended_us=max(ended_us, self.started_us))


def monotonic_us() -> int:
    """The clock that workers' last calls are told by."""
    return time.monotonic_ns() // 1000


def read_use(record: bytes, devices: int, now_us: int) -> Use | None:
    """The use in a slot's record; None before its worker has a program.

    Work that goes on counts as busy until `now_us` (CLOCK_MONOTONIC).
    """
    record = record.ljust(USAGE_BYTES, b"\0")
    started_us, last_call_us, pid, uid = _HEAD.unpack_from(record)
    if not started_us:
        return None
    fields = _ROWS.unpack_from(record, _ROWS_AT)
    calls, busy, since, peak = (fields[at : at + _DEVICES] for at in range(0, 64, _DEVICES))
    working = any(since[:devices])
    last_us = now_us if working else min(last_call_us, now_us)
    name = record[_PROGRAM_AT : _PROGRAM_AT + _PROGRAM_BYTES].partition(b"\0")[0]
    text = name.decode("utf-8", "replace")
    return Use(
        pid=pid & 0xFFFFFFFF,
        uid=uid & 0xFFFFFFFF,
        program="".join(letter if letter.isprintable() else "?" for letter in text),
        started_us=min(started_us, _MOST),
        last_call_us=last_us or None,
        devices=tuple(
            DeviceUse(
                calls=min(calls[device], _MOST),
                busy_us=min(busy[device] + _spent(since[device], now_us), _MOST),
                peak_bytes=min(peak[device], _MOST),
            )
            for device in range(devices)
        ),
    )


class EndedUses:
    """The last word on programs that have ended, until a controller has taken it."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, object]] = {}

    def add(self, worker: str, told: dict[str, object]) -> None:
        """Keep what a report is to say of a worker that has ended."""
        self._kept[worker] = told
        while len(self._kept) > _MOST_ENDED:
            del self._kept[next(iter(self._kept))]

    def first(self, most: int) -> dict[str, dict[str, object]]:
        """The oldest, by worker."""
        return {worker: self._kept[worker] for worker in list(self._kept)[:most]}

    def drop(self, workers: dict[str, dict[str, object]]) -> None:
        """These were reported."""
        for worker in workers:
            self._kept.pop(worker, None)


def _spent(since_us: int, now_us: int) -> int:
    return max(0, now_us - since_us) if since_us else 0
