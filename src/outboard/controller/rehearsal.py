"""What would become of a request, by the rules that would decide it; nothing is changed.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from outboard.model.request import GrantedDevice, Request
from outboard.scheduler.placement import DeviceState, Key, Rules, judge
from outboard.scheduler.queue import Plan


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Where a request would be placed (`devices`), or why it would wait (`reason`).

    A waiting one has its `position`, when it may start if that is known, and, if it is the first,
    the devices that would be kept for it (`kept`).
    """

    devices: tuple[GrantedDevice, ...] = ()
    reason: str = ""
    position: int | None = None
    starts_us: int | None = None
    kept: tuple[Key, ...] = ()

    @classmethod
    def of(cls, made: Plan, request: Request) -> Rehearsal:
        """What a pass over the queue decided for it; raises its refusal."""
        if request.id in made.refusals:
            raise made.refusals[request.id]
        for granted, placement in made.grants:
            if granted.id == request.id:
                return cls(placement.devices)
        standing = made.standings[request.id]
        kept = made.reserved.get(request.id, ())
        return cls((), standing.reason, standing.position, standing.starts_us, kept)

    def to_json(self, request: Request, states: Sequence[DeviceState]) -> dict[str, Any]:
        """The API's answer, with what every device of the pool has for the request."""
        known = {state.key: state for state in states}
        starts = self.starts_us
        return {
            "dry_run": True,
            "fits": bool(self.devices),
            "reason": self.reason,
            "position": self.position,
            "starts": None
            if starts is None
            else dt.datetime.fromtimestamp(starts / 1e6, dt.UTC).isoformat(timespec="seconds"),
            "devices": [
                {
                    "node": one.node,
                    "index": one.index,
                    "name": known[one.node, one.index].name,
                    "share_bytes": one.share_bytes,
                }
                for one in self.devices
            ],
            "needs": [
                {"node": node, "index": index, "lacking_bytes": lacking}
                for node, index in self.kept
                if (lacking := _lacking(known[node, index], request)) > 0
            ],
            "pool": [
                {
                    "node": state.node,
                    "index": state.index,
                    "obstacle": judge(state, request.share, Rules.of(request)),
                }
                for state in states
            ],
        }


def _lacking(state: DeviceState, request: Request) -> int:
    return request.share.of(state.capacity_bytes) - state.free_bytes
