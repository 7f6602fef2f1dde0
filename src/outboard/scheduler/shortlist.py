"""Finds the device for the commonest request, one GPU or a part of one, without looking at all.

SPDX-License-Identifier: Apache-2.0

Devices of one pool and size lie in two lists ordered by what is free, those in use and whole ones;
the best fit of each is one bisection away, and `place` judges between these few. With thousands of
devices that is what lets one controller grant hundreds of requests a second.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from outboard.model.request import Share
from outboard.scheduler.placement import DeviceState, Key, Rules

_Kind = tuple[str, int, int, bool]
_Entry = tuple[int, str, int]


class Shortlist:
    """An index over devices; `put` is told of each, and again when it changes; `drop`, that it has
    gone."""

    def __init__(self, devices: Iterable[DeviceState] = ()) -> None:
        self._devices: dict[Key, DeviceState] = {}
        self._lists: dict[_Kind, list[_Entry]] = {}
        ordered: dict[_Kind, list[_Entry]] = {}
        for device in devices:
            self._devices[device.key] = device
            if not device.closed:
                ordered.setdefault(_kind(device), []).append(_entry(device))
        for kind, entries in ordered.items():
            self._lists[kind] = sorted(entries)

    def drop(self, key: Key) -> None:
        """Know the device no more."""
        before = self._devices.pop(key, None)
        if before is not None and not before.closed:
            entries = self._lists[_kind(before)]
            del entries[bisect_left(entries, _entry(before))]

    def put(self, device: DeviceState) -> None:
        """Know the device as it is now."""
        self.drop(device.key)
        self._devices[device.key] = device
        if not device.closed:
            insort(self._lists.setdefault(_kind(device), []), _entry(device))

    def candidates(self, gpus: int, share: Share, rules: Rules) -> list[DeviceState]:
        """Devices of which one is what `place` would choose of all; none if it may be another, or
        if nothing fits."""
        if gpus != 1 or rules.filters or rules.node or rules.spread:
            return []
        found = []
        for (pool, capacity, minimum, _), entries in self._lists.items():
            wanted = share.of(capacity)
            if pool != (rules.pool or "default") or not minimum <= wanted <= capacity:
                continue
            place = bisect_left(entries, (wanted,))
            if place < len(entries):
                _, node, index = entries[place]
                found.append(self._devices[node, index])
        return found


def _kind(device: DeviceState) -> _Kind:
    whole = device.granted_bytes == 0
    return device.pool, device.capacity_bytes, device.minimum_share_bytes, whole


def _entry(device: DeviceState) -> _Entry:
    return device.free_bytes, device.node, device.index
