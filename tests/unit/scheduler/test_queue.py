"""The queue in simulated time: shares by weight, nobody starved, estimates only where known.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import heapq
import random
from dataclasses import replace
from itertools import count

import pytest

from outboard.model.request import GrantedDevice, Request, Share
from outboard.scheduler.fairness import FairShare
from outboard.scheduler.placement import DeviceState, Key
from outboard.scheduler.queue import Running, Waiting, ordered, plan

MIB = 1 << 20
SECOND = 1_000_000
MINUTE = 60 * SECOND
_numbers = count(1)


def device(index: int, granted_mib: int = 0, node: str = "a") -> DeviceState:
    return DeviceState(node, index, "GPU", 1024 * MIB, granted_mib * MIB, MIB)


def wish(user: str, share: Share, gpus: int = 1, **more: object) -> Request:
    values: dict[str, object] = {"wait_s": None, "uid": 1, "pid": 1, "program": "", **more}
    return Request(f"{next(_numbers):032x}", gpus, share, user=user, **values)  # type: ignore[arg-type]


class Pool:
    """A pool in simulated time: jobs come, are planned, run, end."""

    def __init__(self, devices: int, weights: dict[str, int]) -> None:
        self.devices = {one.key: one for one in map(device, range(devices))}
        self.fair = FairShare(weights)
        self.waiting: dict[str, Waiting] = {}
        self.running: list[tuple[int, str, Request, tuple[GrantedDevice, ...], int]] = []
        self.lengths: dict[str, int] = {}
        self.used: dict[str, float] = {}
        self.started: dict[str, int] = {}
        self.reserved: dict[str, tuple[Key, ...]] = {}
        self.now = 0

    def submit(self, request: Request, length_us: int) -> None:
        self.waiting[request.id] = Waiting(request, self.now)
        self.lengths[request.id] = length_us

    def step(self) -> None:
        """Plan, then let time go to the next end."""
        made = plan(
            list(self.devices.values()),
            self.waiting.values(),
            [Running(devices) for _, _, _, devices, _ in self.running],
            self.fair,
            self.now,
            self.reserved,
        )
        self.reserved = dict(made.reserved)
        for request, placement in made.grants:
            del self.waiting[request.id]
            self._change(placement.devices, 1)
            self.fair.begin(request.user, self._gpus(placement.devices), self.now)
            self.started[request.id] = self.now
            end = self.now + self.lengths[request.id]
            heapq.heappush(self.running, (end, request.id, request, placement.devices, self.now))
        for one in self.devices.values():
            assert 0 <= one.granted_bytes <= one.capacity_bytes
        end, _, request, devices, begun = heapq.heappop(self.running)
        self.now = end
        self._change(devices, -1)
        self.fair.end(request.user, self._gpus(devices), end)
        spent = self._gpus(devices) * (end - begun)
        self.used[request.user] = self.used.get(request.user, 0.0) + spent

    def _change(self, devices: tuple[GrantedDevice, ...], sign: int) -> None:
        for one in devices:
            before = self.devices[one.node, one.index]
            granted = before.granted_bytes + sign * one.share_bytes
            self.devices[before.key] = replace(before, granted_bytes=granted)

    def _gpus(self, devices: tuple[GrantedDevice, ...]) -> float:
        return sum(one.share_bytes for one in devices) / (1024 * MIB)


@pytest.mark.parametrize("seed", range(5))
def test_users_with_endless_demand_get_their_weights_within_5_percent(seed: int) -> None:
    dice = random.Random(seed)
    weights = {"ann": 1, "bob": 1, "cem": 2}
    pool = Pool(4, weights)
    while pool.now < 60 * MINUTE:
        for user in weights:
            while sum(one.request.user == user for one in pool.waiting.values()) < 5:
                share = Share(millionths=dice.choice((250_000, 500_000, 1_000_000)))
                pool.submit(wish(user, share), dice.randrange(10, 90) * SECOND)
        pool.step()
    total = sum(pool.used.values())
    shares = {user: pool.used[user] / total for user in weights}
    print(f"seed {seed}: {shares}")
    for user, weight in weights.items():
        assert shares[user] == pytest.approx(weight / 4, rel=0.05), shares


def test_a_whole_gpu_is_not_starved_by_a_stream_of_small_requests() -> None:
    pool = Pool(2, {})
    dice = random.Random(1)
    large = wish("ann", Share())
    for step in range(400):
        while len(pool.waiting) < 6:
            pool.submit(wish("bob", Share(millionths=250_000)), dice.randrange(30, 300) * SECOND)
        if step == 20:
            pool.submit(large, MINUTE)
            submitted = pool.now
        pool.step()
        if large.id in pool.started:
            break
    # At most what the longest of the small ones still had to run when the device was kept for it.
    assert pool.started[large.id] - submitted <= 300 * SECOND


def test_what_is_kept_for_a_request_stays_the_same_device() -> None:
    devices = [device(0, 512), device(1, 512)]
    large, small = wish("ann", Share()), wish("bob", Share(amount_bytes=256 * MIB))
    queue = [Waiting(large, 0), Waiting(small, 1)]
    first = plan(devices, queue, [], FairShare(), 0)
    (kept,) = first.reserved[large.id]
    assert [granted.devices[0].index for _, granted in first.grants] == [1 - kept[1]]
    # The other device has become emptier since; the one that was kept for it stays.
    emptier = [device(kept[1], 512), device(1 - kept[1], 100)]
    second = plan(emptier, queue[:1], [], FairShare(), 1, first.reserved)
    assert second.reserved == first.reserved


def test_a_short_job_overtakes_only_if_it_is_over_in_time() -> None:
    devices = [device(0, 512)]
    running = [Running((GrantedDevice("a", 0, 512 * MIB),), ends_us=10 * MINUTE)]
    large = Waiting(wish("ann", Share(), wanted_s=60), 0)
    short = Waiting(wish("bob", Share(amount_bytes=MIB), wanted_s=9 * 60), 1)
    long = Waiting(wish("bob", Share(amount_bytes=MIB), wanted_s=11 * 60), 2)
    unknown = Waiting(wish("bob", Share(amount_bytes=MIB)), 3)
    made = plan(devices, [large, short, long, unknown], running, FairShare(), 0)
    assert [request.id for request, _ in made.grants] == [short.request.id]
    assert made.standings[large.request.id].starts_us == 10 * MINUTE
    assert made.standings[long.request.id].starts_us is None
    assert "1 GPUs are kept" in made.standings[unknown.request.id].reason


def test_priority_comes_before_fair_share_and_fair_share_before_age() -> None:
    fair = FairShare({"cem": 2})
    fair.begin("ann", 1, 0)
    old = Waiting(wish("ann", Share()), 0)
    fresh = Waiting(wish("bob", Share()), 5)
    urgent = Waiting(wish("ann", Share(), priority=1), 9)
    assert ordered([old, fresh, urgent], fair, MINUTE) == [urgent, fresh, old]


def test_use_is_forgotten_by_half_in_a_half_life() -> None:
    fair = FairShare(half_life_us=MINUTE)
    fair.begin("ann", 1, 0)
    fair.end("ann", 1, SECOND)
    now = fair.rank("ann", 0, SECOND)
    assert fair.rank("ann", 0, SECOND + MINUTE) == pytest.approx(now / 2)
    assert fair.rank("ann", 0, SECOND + 2 * MINUTE) == pytest.approx(now / 4)


def test_what_can_never_be_is_refused_and_holds_nobody_up() -> None:
    made = plan(
        [device(0)],
        [Waiting(wish("ann", Share(), gpus=2), 0), Waiting(wish("bob", Share()), 1)],
        [],
        FairShare(),
        0,
    )
    assert [str(error.code) for error in made.refusals.values()] == ["too_many_gpus"]
    assert len(made.grants) == 1
