"""Placement: never more than there is, never without a reason.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboard.errors import (
    NothingMatches,
    RequestError,
    ShareTooLarge,
    ShareTooSmall,
    TooManyGpus,
)
from outboard.model.filters import parse_filter
from outboard.model.request import GrantedDevice, Share
from outboard.scheduler.placement import Busy, DeviceState, Placement, Rules, place
from outboard.scheduler.shortlist import Shortlist

MIB = 1 << 20


def device(
    index: int = 0, *, node: str = "a", capacity_mib: int = 1024, granted_mib: int = 0
) -> DeviceState:
    return DeviceState(node, index, "GPU", capacity_mib * MIB, granted_mib * MIB, 6 * MIB)


shares = st.one_of(
    st.just(Share()),
    st.integers(1, 1_000_000).map(lambda millionths: Share(millionths=millionths)),
    st.integers(1, 3000 * MIB).map(lambda amount: Share(amount_bytes=amount)),
)
pools = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 2048), st.integers(0, 2048)), max_size=6
).map(
    lambda rows: [
        device(index, node=node, capacity_mib=capacity, granted_mib=min(capacity, granted))
        for index, (node, capacity, granted) in enumerate(rows)
    ]
)


@given(pools, st.lists(st.tuples(st.integers(1, 4), shares), max_size=20))
def test_no_sequence_of_requests_grants_more_than_a_device_has(
    devices: list[DeviceState], requests: list[tuple[int, Share]]
) -> None:
    granted = {item.index: item.granted_bytes for item in devices}
    for gpus, share in requests:
        now = [
            DeviceState(d.node, d.index, d.name, d.capacity_bytes, granted[d.index], 6 * MIB)
            for d in devices
        ]
        try:
            outcome = place(now, gpus, share)
        except RequestError as error:
            assert error.message
            assert error.hint
            continue
        if isinstance(outcome, Busy):
            assert outcome.reason
            continue
        assert len({(d.node, d.index) for d in outcome.devices}) == gpus
        for chosen in outcome.devices:
            granted[chosen.index] += chosen.share_bytes
            capacity = next(d.capacity_bytes for d in devices if d.index == chosen.index)
            assert granted[chosen.index] <= capacity
            assert chosen.share_bytes >= 6 * MIB


@given(pools, st.integers(1, 4), shares)
def test_what_is_busy_fits_on_the_empty_pool(
    devices: list[DeviceState], gpus: int, share: Share
) -> None:
    try:
        outcome = place(devices, gpus, share)
    except RequestError:
        return
    if isinstance(outcome, Busy):
        empty = [
            DeviceState(d.node, d.index, d.name, d.capacity_bytes, 0, d.minimum_share_bytes)
            for d in devices
        ]
        assert isinstance(place(empty, gpus, share), Placement)


@given(st.integers(1, 100), st.integers(700, 100_000))
def test_n_shares_of_one_nth_fit_on_one_device(parts: int, capacity_mib: int) -> None:
    share = Share(millionths=1_000_000 // parts)
    assert parts * share.of(capacity_mib * MIB) <= capacity_mib * MIB


def test_a_share_goes_where_the_least_is_left_over() -> None:
    devices = [device(0), device(1, granted_mib=700), device(2, granted_mib=900)]
    assert place(devices, 1, Share(amount_bytes=200 * MIB)) == Placement(
        (GrantedDevice("a", 1, 200 * MIB),)
    )


def test_gpus_of_one_server_are_preferred_to_a_better_fit_on_two() -> None:
    devices = [
        device(0, node="a", granted_mib=900),
        device(0, node="b"),
        device(1, node="b"),
        device(0, node="c", granted_mib=900),
    ]
    outcome = place(devices, 2, Share(amount_bytes=100 * MIB))
    assert isinstance(outcome, Placement)
    assert {chosen.node for chosen in outcome.devices} == {"b"}


def test_whole_gpus_are_all_of_what_can_be_granted() -> None:
    outcome = place([device(0), device(1)], 2, Share())
    assert isinstance(outcome, Placement)
    assert [chosen.share_bytes for chosen in outcome.devices] == [1024 * MIB, 1024 * MIB]


@pytest.mark.parametrize(
    ("gpus", "share", "kind", "said"),
    [
        (3, Share(), TooManyGpus, "-n 3: this pool has 2 GPUs"),
        (17, Share(), TooManyGpus, "at most 16 GPUs"),
        (1, Share(amount_bytes=1025 * MIB), ShareTooLarge, "the largest GPU .* has 1024 MiB"),
        (2, Share(amount_bytes=600 * MIB), ShareTooLarge, "the 2 largest GPUs .* 512 MiB"),
        (1, Share(amount_bytes=5 * MIB), ShareTooSmall, "-m 5 cannot hold"),
        (1, Share(millionths=1000), ShareTooSmall, "-p 0.001 is 1 MiB, which cannot hold"),
    ],
)
def test_what_no_state_could_grant_is_refused(
    gpus: int, share: Share, kind: type[RequestError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        place([device(0), device(1, capacity_mib=512)], gpus, share)


def nodes_of(outcome: Placement | Busy) -> list[str]:
    assert isinstance(outcome, Placement), outcome
    return [chosen.node for chosen in outcome.devices]


def test_a_share_does_not_break_a_whole_gpu_while_a_broken_one_fits() -> None:
    # The whole one is the better fit, being smaller.
    devices = [device(0, capacity_mib=512), device(1, granted_mib=100)]
    outcome = place(devices, 1, Share(amount_bytes=500 * MIB))
    assert outcome == Placement((GrantedDevice("a", 1, 500 * MIB),))


def test_spread_takes_the_emptiest_of_different_servers() -> None:
    devices = [device(0), device(1), device(0, node="b", granted_mib=10), device(0, node="c")]
    outcome = place(devices, 3, Share(amount_bytes=100 * MIB), Rules(spread=True))
    assert sorted(nodes_of(outcome)) == ["a", "b", "c"]


def test_same_node_waits_rather_than_to_span_servers() -> None:
    devices = [device(0), device(1, granted_mib=1000), device(0, node="b")]
    outcome = place(devices, 2, Share(amount_bytes=500 * MIB), Rules(same_node=True))
    assert outcome == Busy("no server has 2 such GPUs free at once")
    with pytest.raises(TooManyGpus, match="no server of this pool has more than 2"):
        place(devices, 3, Share(amount_bytes=MIB * 10), Rules(same_node=True))


def test_closed_devices_are_busy_and_say_why() -> None:
    closed = DeviceState("a", 0, "GPU", 100 * MIB, 0, MIB, closed="drained: new fan")
    outcome = place([closed], 1, Share())
    assert outcome == Busy("1 of 1 such GPUs are closed: a: drained: new fan")


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("device.name=H100", True),
        ("device.name!=H100", False),
        ("device.memory>=16G", True),
        ("device.memory<=16G", False),
        ("server.cuda-version>=12.8", True),
        ("server.cuda-version>=13.1", False),
        ("server.cuda-version=13", True),
        ("label.zone=a", True),
        ("label.rack=1", False),
        ("label.rack!=1", True),
    ],
)
def test_filters_choose_devices(text: str, fits: bool) -> None:
    facts = {
        "device.name": "H100",
        "device.memory": "80G",
        "server.cuda-version": "13.0",
        "label.zone": "a",
    }
    devices = [device(0), DeviceState("b", 0, "H100", 1024 * MIB, 0, MIB, facts=facts)]
    rules = Rules(filters=(parse_filter("device.name=H100"), parse_filter(text)))
    if fits:
        assert nodes_of(place(devices, 1, Share(), rules)) == ["b"]
    else:
        with pytest.raises(NothingMatches, match="0 of the pool's 2 GPUs"):
            place(devices, 1, Share(), rules)


def test_a_server_or_a_pool_can_be_named() -> None:
    devices = [device(0), device(0, node="b"), DeviceState("c", 0, "GPU", MIB, 0, 1, pool="x")]
    assert nodes_of(place(devices, 1, Share(), Rules(node="b"))) == ["b"]
    assert nodes_of(place(devices, 1, Share(), Rules(pool="x"))) == ["c"]
    with pytest.raises(NothingMatches, match="on z"):
        place(devices, 1, Share(), Rules(node="z"))


@pytest.mark.parametrize(
    "text", ["", "device.name", "x=1", "device.name>=1", "device.memory>=much", "label.a="]
)
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        parse_filter(text)


@given(
    pools,
    shares,
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2048), st.booleans()), max_size=10),
)
def test_the_shortlist_chooses_what_looking_at_all_chooses(
    devices: list[DeviceState], share: Share, changes: list[tuple[int, int, bool]]
) -> None:
    shortlist = Shortlist(devices)
    now = {one.key: one for one in devices}
    for which, granted_mib, closed in changes:
        if devices:
            before = devices[which % len(devices)]
            granted = min(granted_mib * MIB, before.capacity_bytes)
            after = replace(before, granted_bytes=granted, closed="x" if closed else "")
            now[before.key] = after
            shortlist.put(after)
    few = shortlist.candidates(1, share, Rules())
    try:
        expected = place(list(now.values()), 1, share)
    except RequestError:
        expected = Busy("")
    if isinstance(expected, Busy):
        assert not few
    else:
        assert place(few, 1, share) == expected
