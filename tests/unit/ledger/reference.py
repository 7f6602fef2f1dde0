"""What the ledger should say: the same operations on plain dictionaries, without a database.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from outboard.ledger.limits import COUNTED, Subject, subjects_of
from outboard.ledger.requests import Terms
from outboard.model.request import GrantedDevice

Key = tuple[str, int]


@dataclass(slots=True)
class ModelDevice:
    uuid: str
    capacity_bytes: int
    state: str = "ready"
    healthy: bool = True


@dataclass(slots=True)
class ModelNode:
    seen_us: int
    reconciled_base: int
    state: str = "ready"


@dataclass(slots=True)
class ModelRequest:
    user: str
    host: str | None
    seen_us: int
    wait_until_us: int | None
    state: str = "waiting"


@dataclass(slots=True)
class ModelAllocation:
    request: str
    session: str
    user: str
    subjects: list[Subject]
    epoch: int
    expires_us: int
    devices: dict[Key, int]
    state: str = "active"
    picked_up: bool = False
    holder: str = ""
    spans: list[tuple[Key, int, int, int]] = field(default_factory=list)
    started_us: dict[Key, int] = field(default_factory=dict)


class Reference:
    """The pool as it should be; every method says what the ledger should answer."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.base = 0
        self.devices: dict[Key, ModelDevice] = {}
        self.nodes: dict[str, ModelNode] = {}
        self.requests: dict[str, ModelRequest] = {}
        self.allocations: dict[str, ModelAllocation] = {}
        self.limits: dict[tuple[Subject, str], int] = {}
        self.groups: dict[str, list[str]] = {}

    def granted_bytes(self, key: Key) -> int:
        return sum(one.devices.get(key, 0) for one in self.allocations.values())

    def used(self, subject: Subject) -> dict[str, int]:
        mine = [
            one
            for one in self.allocations.values()
            if one.state != "ended" and subject in one.subjects
        ]
        return {
            "gpus": sum(len(one.devices) for one in mine),
            "bytes": sum(sum(one.devices.values()) for one in mine),
            "sessions": len(mine),
        }

    def limit(self, subject: Subject, kind: str) -> int | None:
        return self.limits.get((subject, kind), self.limits.get(((subject[0], "*"), kind)))

    def refused(self, subjects: Sequence[Subject], more: dict[str, int]) -> bool:
        for subject in subjects:
            used = self.used(subject)
            for kind in COUNTED:
                value = self.limit(subject, kind)
                if value is not None and more[kind] > 0 and used[kind] + more[kind] > value:
                    return True
        return False

    def grant(self, request_id: str, chosen: Sequence[GrantedDevice], now_us: int) -> str:
        """`granted`, `again`, `Lost`, `LimitReached` or `NotFound`."""
        asked = self.requests[request_id]
        if asked.state == "granted":
            return "again"
        if asked.state != "waiting":
            return "NotFound"
        subjects = subjects_of(asked.user, self.groups.get(asked.user, []), asked.host)
        total = sum(device.share_bytes for device in chosen)
        if self.refused(subjects, {"gpus": len(chosen), "bytes": total, "sessions": 1}):
            return "LimitReached"
        return "granted" if all(self._open(one, now_us) for one in chosen) else "Lost"

    def _open(self, wanted: GrantedDevice, now_us: int) -> bool:
        device = self.devices.get((wanted.node, wanted.index))
        if device is None:
            return False
        node = self.nodes[wanted.node]
        free = device.capacity_bytes - self.granted_bytes((wanted.node, wanted.index))
        assert self.terms.silent_us is not None
        return (
            wanted.share_bytes <= free
            and device.healthy
            and device.state == node.state == "ready"
            and node.reconciled_base >= self.base
            and node.seen_us >= now_us - self.terms.silent_us
        )

    def release(self, allocation: str, node: str | None, now_us: int) -> str:
        """`over`, `part` or `no`."""
        one = self.allocations[allocation]
        if one.state != "ending":
            return "no"
        for key in [key for key in one.devices if node in (None, key[0])]:
            self.end_span(one, key, now_us)
        if not one.devices:
            one.state = "ended"
        return "over" if one.state == "ended" else "part"

    def end_span(self, one: ModelAllocation, key: Key, now_us: int) -> None:
        one.spans.append((key, one.devices.pop(key), one.started_us.pop(key), now_us))

    def held(self, since_us: int, until_us: int, now_us: int) -> dict[str, int]:
        """Byte-microseconds by user."""
        sums: dict[str, int] = {}
        for one in self.allocations.values():
            live = [(key, share, one.started_us[key], now_us) for key, share in one.devices.items()]
            for _, share, start, end in one.spans + live:
                span = min(end, until_us) - max(start, since_us)
                if span > 0:
                    sums[one.user] = sums.get(one.user, 0) + share * span
        return sums
