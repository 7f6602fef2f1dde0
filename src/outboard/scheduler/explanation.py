"""Says why a request waits, or why it was placed as it was, device by device.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from outboard.model.request import GrantedDevice, Request
from outboard.scheduler.placement import DeviceState, Key, Placement, Rules, breaks, judge, place
from outboard.scheduler.queue import Standing
from outboard.units import format_duration, format_mib

_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a device was to a request: `chosen`, `fits` or `refused`, and why."""

    node: str
    index: int
    verdict: str
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What there is to know of the whole, a line for each thing, and the devices."""

    lines: tuple[str, ...] = ()
    devices: tuple[Verdict, ...] = ()


def explain_wait(
    standing: Standing | None, request: Request, devices: Sequence[DeviceState], now_us: int
) -> Explanation:
    """Why a request waits."""
    lines = []
    if standing is not None:
        lines.append(f"position {standing.position}: {standing.reason}")
        if standing.starts_us is not None:
            wait_s = max(0, standing.starts_us - now_us) / _SECOND_US
            lines.append(f"it should start within {format_duration(wait_s)}")
        else:
            lines.append("when it will start is not known: those who run did not all give --time")
    verdicts = []
    for device in devices:
        why = judge(device, request.share, Rules.of(request))
        verdict = "refused" if why else "fits"
        verdicts.append(Verdict(device.node, device.index, verdict, why or "it would do"))
    return Explanation(tuple(lines), tuple(verdicts))


def explain_grant(
    request: Request,
    chosen: Sequence[GrantedDevice],
    before: Sequence[DeviceState],
    kept: Collection[Key] = (),
) -> Explanation:
    """Why a request was granted these devices, the pool having been as it was `before`.

    `kept` are the devices that were another's, who waited for them.
    """
    rules = Rules.of(request)
    keys = {(device.node, device.index) for device in chosen}
    again = place(before, request.gpus, request.share, rules, kept)
    lines = [_rule(request, len({node for node, _ in keys}))]
    if not isinstance(again, Placement) or {(d.node, d.index) for d in again.devices} != keys:
        lines.append(
            "what is remembered of the pool does not lead there: others were granted GPUs at the"
            " same moment, or servers or labels have changed since"
        )
    verdicts = [_verdict(device, request, keys, kept) for device in before]
    order = ("chosen", "fits", "refused")
    verdicts.sort(key=lambda one: order.index(one.verdict))
    return Explanation(tuple(lines), tuple(verdicts))


def _verdict(
    device: DeviceState, request: Request, chosen: Collection[Key], kept: Collection[Key]
) -> Verdict:
    wanted = request.share.of(device.capacity_bytes)
    broken = breaks(device, wanted)
    left = f"{format_mib(device.free_bytes - wanted)} left over"
    if device.key in chosen:
        state = "broken up" if broken else "in use already" if device.granted_bytes else "whole"
        return Verdict(device.node, device.index, "chosen", f"chosen: {state}, {left}")
    why = judge(device, request.share, Rules.of(request))
    if not why and device.key in kept:
        why = "it was kept for the first of the queue"
    if why:
        return Verdict(device.node, device.index, "refused", why)
    would = "it would do, but is whole and would be broken up" if broken else "it would do"
    return Verdict(device.node, device.index, "fits", f"{would}, {left}")


def _rule(request: Request, servers: int) -> str:
    """The rule of `placement` that chose, in words."""
    if request.spread:
        if request.gpus == 1:
            return "--spread: the emptiest GPU that fits"
        if request.same_node:
            return "--spread --same-node: all on one server, the emptiest that fits"
        return "--spread: a GPU of each server in turn, the emptiest first"
    if request.gpus == 1:
        return "GPUs in use already before whole ones, then the least left over, then by name"
    if servers == 1:
        return "all on one server: the fewest whole GPUs broken up, then the least left over"
    return f"no server had {request.gpus} that fit: as few servers as possible"
