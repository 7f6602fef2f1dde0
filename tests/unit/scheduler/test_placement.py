"""Placement: never more than there is, never without a reason.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboard.errors import RequestError, ShareTooLarge, ShareTooSmall, TooManyGpus
from outboard.model.request import GrantedDevice, Share
from outboard.scheduler.placement import Busy, DeviceState, Placement, place

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
