"""What is said of a request that waits, and of one that was granted.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from outboard.model.filters import parse_filter
from outboard.model.request import GrantedDevice, Request, Share
from outboard.scheduler.explanation import explain_grant, explain_wait
from outboard.scheduler.fairness import FairShare
from outboard.scheduler.placement import DeviceState, Placement, Rules, place
from outboard.scheduler.queue import Waiting, plan

MIB = 1 << 20
QUARTER = Share(amount_bytes=256 * MIB)


def device(node: str, index: int, granted_mib: int = 0, closed: str = "") -> DeviceState:
    return DeviceState(node, index, "GPU", 1024 * MIB, granted_mib * MIB, MIB, closed=closed)


def wish(share: Share, gpus: int = 1, **more: object) -> Request:
    made = Request("0" * 32, gpus, share, None, 0, 1, "test", user="ann")
    return replace(made, **more)  # type: ignore[arg-type]


def whys(request: Request, devices: list[DeviceState]) -> tuple[list[str], dict[str, str]]:
    """The lines and each device's reason, for the grant that the rules make."""
    outcome = place(devices, request.gpus, request.share, Rules.of(request))
    assert isinstance(outcome, Placement)
    found = explain_grant(request, outcome.devices, devices)
    return list(found.lines), {f"{one.node}{one.index}": one.why for one in found.devices}


def test_a_request_that_waits_is_told_of_each_device_what_is_in_the_way() -> None:
    devices = [device("a", 0, 1000), device("a", 1, closed="cordoned: new fan")]
    request = wish(Share(amount_bytes=100 * MIB))
    made = plan(devices, [Waiting(request, 0)], [], FairShare(), 0)
    found = explain_wait(made.standings[request.id], request, devices, 0)
    assert found.lines[0] == "position 1: at most 24 MiB of one GPU are free"
    assert "not known" in found.lines[1]
    assert [(one.node, one.index, one.why) for one in found.devices] == [
        ("a", 0, "24 MiB are free, 100 MiB are asked for"),
        ("a", 1, "cordoned: new fan"),
    ]


def test_a_grant_says_what_each_device_was_to_it() -> None:
    lines, found = whys(
        wish(QUARTER, filters=(parse_filter("device.memory<=2G"),)),
        [
            replace(device("a", 0, 512), facts={"device.memory": "1024"}),
            replace(device("a", 1), facts={"device.memory": "1024"}),
            replace(device("b", 0, 256), facts={"device.memory": "1024"}),
            replace(device("b", 1, 1000), facts={"device.memory": "1024"}),
            replace(device("c", 0), facts={"device.memory": "80000"}),
            replace(device("d", 0, closed="unhealthy: Xid 79"), facts={"device.memory": "1024"}),
        ],
    )
    assert lines == [
        "GPUs in use already before whole ones, then the least left over, then by name"
    ]
    assert found == {
        "a0": "chosen: in use already, 256 MiB left over",
        "a1": "it would do, but is whole and would be broken up, 768 MiB left over",
        "b0": "it would do, 512 MiB left over",
        "b1": "24 MiB are free, 256 MiB are asked for",
        "c0": "it does not meet device.memory<=2G",
        "d0": "unhealthy: Xid 79",
    }
    assert next(iter(found)) == "a0", "what was chosen comes first"


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ({"gpus": 2}, "all on one server"),
        ({"gpus": 3}, "no server had 3 that fit: as few servers as possible"),
        ({"gpus": 2, "spread": True}, "--spread: a GPU of each server in turn"),
        ({"gpus": 2, "spread": True, "same_node": True}, "--spread --same-node: all on one"),
        ({"spread": True}, "--spread: the emptiest GPU"),
    ],
)
def test_a_grant_names_the_rule_that_chose(more: dict[str, object], rule: str) -> None:
    devices = [device("a", 0), device("a", 1, 100), device("b", 0), device("b", 1)]
    (line,), _ = whys(wish(QUARTER, **more), devices)
    assert line.startswith(rule)


def test_a_grant_that_does_not_follow_from_what_is_remembered_says_so() -> None:
    devices = [device("a", 0, 512), device("a", 1)]
    lines = explain_grant(wish(QUARTER), [GrantedDevice("a", 1, 256 * MIB)], devices).lines
    assert lines[1].startswith("what is remembered of the pool does not lead there")


def test_what_was_kept_for_another_was_no_candidate() -> None:
    devices = [device("a", 0, 512), device("a", 1)]
    chosen = [GrantedDevice("a", 1, 256 * MIB)]
    found = explain_grant(wish(QUARTER), chosen, devices, {("a", 0)})
    assert len(found.lines) == 1
    assert found.devices[1].why == "it was kept for the first of the queue"
