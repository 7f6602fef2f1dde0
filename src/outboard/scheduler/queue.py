"""Who is next: priorities, fair share, and backfill that starves nobody. Pure functions.

SPDX-License-Identifier: Apache-2.0

The queue is ordered by priority, then by what the users have used lately, then by age. What fits is
granted in that order. The first that does not fit has devices kept for it: those that will be free
soonest take nothing new, except what is sure to be over before they are needed. So those behind it
may overtake, but never delay it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush

from outboard.errors import RequestError
from outboard.model.request import GrantedDevice, Request
from outboard.scheduler.fairness import FairShare
from outboard.scheduler.placement import (
    Busy,
    DeviceState,
    Key,
    Placement,
    Rules,
    judge,
    place,
)
from outboard.units import MILLION

_SECOND_US = 1_000_000
_BACKFILL_DEPTH = 100  # how many behind the first that waits are looked at in one pass


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request in the queue, and since when."""

    request: Request
    created_us: int


@dataclass(frozen=True, slots=True)
class Running:
    """An allocation: what it holds, and when it will be over, if that is known."""

    devices: tuple[GrantedDevice, ...]
    ends_us: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a request stands: its place in the queue (1 is next), why, and when, if known."""

    position: int
    reason: str
    starts_us: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What one pass over the queue decided."""

    grants: tuple[tuple[Request, Placement], ...]
    refusals: Mapping[str, RequestError]
    standings: Mapping[str, Standing]
    reserved: Mapping[str, tuple[Key, ...]] = field(default_factory=dict)


def ordered(waiting: Iterable[Waiting], fair: FairShare, now_us: int) -> list[Waiting]:
    """The queue, next first: as if each were granted before the next is looked for."""
    levels: dict[int, dict[str, deque[Waiting]]] = {}
    for one in sorted(waiting, key=lambda one: (one.created_us, one.request.id)):
        of_user = levels.setdefault(one.request.priority, {})
        of_user.setdefault(one.request.user, deque()).append(one)
    more: dict[str, float] = {}
    order: list[Waiting] = []
    for _, of_user in sorted(levels.items(), reverse=True):
        heap = [
            (fair.rank(user, more.get(user, 0.0), now_us), queue[0].created_us, user)
            for user, queue in of_user.items()
        ]
        heapify(heap)
        while heap:
            _, _, user = heappop(heap)
            one = of_user[user].popleft()
            order.append(one)
            more[user] = more.get(user, 0.0) + _gpus(one.request)
            if of_user[user]:
                rank = fair.rank(user, more[user], now_us)
                heappush(heap, (rank, of_user[user][0].created_us, user))
    return order


def _gpus(request: Request) -> float:
    """How much of a GPU a request is about, for the order alone."""
    return request.gpus * (request.share.millionths or MILLION) / MILLION


def plan(
    devices: Sequence[DeviceState],
    waiting: Iterable[Waiting],
    running: Sequence[Running],
    fair: FairShare,
    now_us: int,
    before: Mapping[str, tuple[Key, ...]] | None = None,
) -> Plan:
    """One pass: what to grant now, what can never be, and how the others stand.

    `before` is the last pass's `reserved`: devices that are kept for a request stay its own.
    """
    state = {device.key: device for device in devices}
    grants: list[tuple[Request, Placement]] = []
    refusals: dict[str, RequestError] = {}
    standings: dict[str, Standing] = {}
    head: _Head | None = None
    for one in ordered(waiting, fair, now_us):
        request = one.request
        position = len(standings) + 1
        if position > _BACKFILL_DEPTH:
            standings[request.id] = Standing(position, f"{position - 1} requests are before it")
            continue
        held = head.held_from(request, now_us) if head is not None else ()
        try:
            outcome = place(
                list(state.values()), request.gpus, request.share, Rules.of(request), held
            )
        except RequestError as error:
            refusals[request.id] = error
            continue
        if isinstance(outcome, Placement):
            grants.append((request, outcome))
            _take(state, outcome.devices)
            continue
        if head is None:
            kept = (before or {}).get(request.id, ())
            head = _reserve(request, list(state.values()), running, kept, now_us)
            standings[request.id] = Standing(position, outcome.reason, head.starts_us)
        else:
            standings[request.id] = Standing(position, _behind(position, outcome, held))
    reserved = {} if head is None else {head.request: head.keys}
    return Plan(tuple(grants), refusals, standings, reserved)


@dataclass(frozen=True, slots=True)
class _Head:
    """The first request that does not fit, and the devices that are kept for it."""

    request: str
    keys: tuple[Key, ...]
    starts_us: int | None

    def held_from(self, other: Request, now_us: int) -> Collection[Key]:
        """The kept devices, unless the other is sure to be over before they are needed."""
        if self.starts_us is None or other.wanted_s is None:
            return self.keys
        over_us = now_us + int(other.wanted_s * _SECOND_US)
        return () if over_us <= self.starts_us else self.keys


def _reserve(
    request: Request,
    devices: Sequence[DeviceState],
    running: Sequence[Running],
    kept: tuple[Key, ...],
    now_us: int,
) -> _Head:
    """Choose the devices that will be free for the request soonest, if nothing new takes them.

    Those kept for it before come first, so that they can empty; then those known to be free
    soonest; then those with the fewest bytes in the way.
    """
    rules = Rules.of(request)
    possible = []
    for device in devices:
        alone = replace(device, granted_bytes=0)
        if judge(alone, request.share, rules):
            continue
        lacking = request.share.of(device.capacity_bytes) - device.free_bytes
        free_us = _free_us(device, lacking, running, now_us)
        known = free_us if free_us is not None else 1 << 62
        order = (device.key not in kept, known, max(0, lacking), device.node, device.index)
        possible.append((order, device.key, free_us))
    if rules.same_node:
        possible = _of_one_node(possible, request.gpus)
    chosen = sorted(possible)[: request.gpus]
    times = [free_us for _, _, free_us in chosen]
    known_times = [free_us for free_us in times if free_us is not None]
    starts_us = max(known_times) if len(known_times) == len(times) == request.gpus else None
    return _Head(request.id, tuple(key for _, key, _ in chosen), starts_us)


_Possible = tuple[tuple[bool, int, int, str, int], Key, int | None]


def _of_one_node(possible: list[_Possible], gpus: int) -> list[_Possible]:
    by_node: dict[str, list[_Possible]] = {}
    for item in sorted(possible):
        by_node.setdefault(item[1][0], []).append(item)
    enough = [group[:gpus] for group in by_node.values() if len(group) >= gpus]
    return min(enough, key=lambda group: [item[0] for item in group][::-1], default=[])


def _free_us(
    device: DeviceState, lacking: int, running: Sequence[Running], now_us: int
) -> int | None:
    """When so many bytes more of the device are free, if everything in the way says when."""
    if lacking <= 0:
        return now_us
    ends = sorted(
        (one.ends_us, granted.share_bytes)
        for one in running
        if one.ends_us is not None
        for granted in one.devices
        if (granted.node, granted.index) == device.key
    )
    for ends_us, share_bytes in ends:
        lacking -= share_bytes
        if lacking <= 0:
            return max(now_us, ends_us)
    return None


def _take(state: dict[Key, DeviceState], chosen: Iterable[GrantedDevice]) -> None:
    for granted in chosen:
        key = granted.node, granted.index
        before = state[key]
        state[key] = replace(before, granted_bytes=before.granted_bytes + granted.share_bytes)


def _behind(position: int, outcome: Busy, held: Collection[Key]) -> str:
    if held:
        return f"{outcome.reason}; {len(held)} GPUs are kept for the request at position 1"
    return f"{outcome.reason}; {position - 1} requests are before it"
