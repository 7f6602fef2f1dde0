"""What agents say their programs did: read from reports, and kept until it is written down.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from outboard.errors import MalformedRequest
from outboard.ledger.accounting import Use

_MOST_USES = 65536
_MOST_DEVICES = 16
_MOST = 1 << 62


class Uses:
    """The newest word on each program, by worker, since it was last written down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], list[Use]] = {}

    def keep(self, uses: Iterable[Use]) -> None:
        """Keep what a report said; a later report of a worker replaces the earlier."""
        by_worker: dict[tuple[str, str], list[Use]] = {}
        for use in uses:
            by_worker.setdefault((use.node, use.worker), []).append(use)
        with self._lock:
            self._kept.update(by_worker)

    def take(self) -> list[Use]:
        """All that is kept, which is not kept any longer."""
        with self._lock:
            kept, self._kept = self._kept, {}
        return [use for uses in kept.values() for use in uses]

    def give_back(self, uses: Iterable[Use]) -> None:
        """What could not be written; what was reported meanwhile is newer."""
        back: dict[tuple[str, str], list[Use]] = {}
        for use in uses:
            back.setdefault((use.node, use.worker), []).append(use)
        with self._lock:
            self._kept = {**back, **self._kept}


def read_uses(node: str, body: Mapping[str, Any]) -> list[Use]:
    """The uses in a node's report, one for each device of a program; raises `MalformedRequest`."""
    listed = body.get("uses", [])
    if not isinstance(listed, list) or len(listed) > _MOST_USES:
        raise MalformedRequest(f"uses is not a list of at most {_MOST_USES}")
    found = []
    for told in listed:
        if not isinstance(told, dict):
            raise MalformedRequest("a use is an object")
        program = _text(told, "program", empty=True)
        devices = told.get("devices")
        if not isinstance(devices, list) or len(devices) > _MOST_DEVICES:
            raise MalformedRequest("the devices of a use are not a list")
        for device in devices:
            if not isinstance(device, dict):
                raise MalformedRequest("a device of a use is an object")
            ended = told.get("ended_us")
            found.append(
                Use(
                    worker=_text(told, "worker"),
                    node=node,
                    idx=_whole(device, "index"),
                    session=_text(told, "session"),
                    allocation=_text(told, "allocation"),
                    uid=_whole(told, "uid"),
                    pid=_whole(told, "pid"),
                    program=program,
                    started_us=_whole(told, "started_us"),
                    ended_us=None if ended is None else _whole(told, "ended_us"),
                    busy_us=_whole(device, "busy_us"),
                    calls=_whole(device, "calls"),
                    peak_bytes=_whole(device, "peak_bytes"),
                )
            )
    return found


def _text(record: Mapping[str, Any], name: str, *, empty: bool = False) -> str:
    value = record.get(name)
    if not isinstance(value, str) or len(value) > 64 or not (value or empty):
        raise MalformedRequest(f"{name} of a use is missing, too long, or not text")
    if not value.isprintable():
        raise MalformedRequest(f"{name} of a use is not printable")
    return value


def _whole(record: Mapping[str, Any], name: str) -> int:
    value = record.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST:
        raise MalformedRequest(f"{name} of a use is missing, or not a whole number")
    return value
