"""Which devices a request gets: a pure function that can also say why not.

SPDX-License-Identifier: Apache-2.0

Packing, the default: fewest servers first (a session on one server has one stream to keep in
order), then devices that are in use already before whole ones, then best fit, so that whole GPUs
stay whole for who needs them. Spreading is the opposite: the emptiest devices, of many servers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from outboard.errors import (
    NothingMatches,
    RequestError,
    ShareTooLarge,
    ShareTooSmall,
    TooManyGpus,
)
from outboard.model.filters import Filter
from outboard.model.node import MOST_DEVICES_OF_A_SESSION
from outboard.model.request import GrantedDevice, Request, Share
from outboard.units import format_fraction, format_mib

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A device as the scheduler sees it. `closed` says why it takes nothing new, if it does not."""

    node: str
    index: int
    name: str
    capacity_bytes: int
    granted_bytes: int
    minimum_share_bytes: int
    pool: str = "default"
    closed: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.node, self.index

    @property
    def free_bytes(self) -> int:
        return self.capacity_bytes - self.granted_bytes


@dataclass(frozen=True, slots=True)
class Rules:
    """Where a request may go, beyond its share: see `Request`."""

    filters: tuple[Filter, ...] = ()
    spread: bool = False
    same_node: bool = False
    node: str = ""
    pool: str = ""

    @classmethod
    def of(cls, request: Request) -> Rules:
        return cls(request.filters, request.spread, request.same_node, request.node, request.pool)


ANYWHERE = Rules()


@dataclass(frozen=True, slots=True)
class Placement:
    """The devices of a request that can be granted now; `avoided` were held for others."""

    devices: tuple[GrantedDevice, ...]
    avoided: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Busy:
    """The request could be granted if others ended; `reason` says what is missing."""

    reason: str


def place(
    devices: Sequence[DeviceState],
    gpus: int,
    share: Share,
    rules: Rules = ANYWHERE,
    held: Collection[Key] = (),
) -> Placement | Busy:
    """Choose devices for a request; raises a `RequestError` if no state of this pool could.

    Shapes: every chosen device is distinct; its share is at least its minimum and at most what is
    free of it; none is closed or in `held`, the devices that others wait for.
    """
    able = _able(devices, gpus, share, rules)
    fitting = [(device, share.of(device.capacity_bytes)) for device in able]
    fitting = [
        (device, wanted)
        for device, wanted in fitting
        if wanted <= device.free_bytes and not device.closed and device.key not in held
    ]
    chosen = _choose(fitting, gpus, rules) if len(fitting) >= gpus else None
    if chosen is None:
        return Busy(_why_busy(able, len(fitting), gpus, share))
    return Placement(
        tuple(GrantedDevice(device.node, device.index, wanted) for device, wanted in chosen),
        tuple(held),
    )


def judge(device: DeviceState, share: Share, rules: Rules) -> str:
    """Why a device cannot be used for a request now; empty if it can."""
    mismatch = _mismatch(device, rules)
    if mismatch:
        return mismatch
    wanted = share.of(device.capacity_bytes)
    if wanted > device.capacity_bytes:
        return f"it has {format_mib(device.capacity_bytes)}, {format_mib(wanted)} are asked for"
    if wanted < device.minimum_share_bytes:
        return f"{format_mib(wanted)} of it cannot hold a CUDA context"
    if device.closed:
        return device.closed
    if wanted > device.free_bytes:
        return f"{format_mib(device.free_bytes)} are free, {format_mib(wanted)} are asked for"
    return ""


def breaks(device: DeviceState, wanted: int) -> bool:
    """Whether a whole GPU would be whole no more."""
    return not device.granted_bytes and wanted < device.capacity_bytes


def _mismatch(device: DeviceState, rules: Rules) -> str:
    if rules.node and device.node != rules.node:
        return f"it is not on {rules.node}"
    if device.pool != (rules.pool or "default"):
        return f"it is in pool {device.pool}"
    for condition in rules.filters:
        if not condition.matches(device.facts):
            return f"it does not meet {condition}"
    return ""


def _able(
    devices: Sequence[DeviceState], gpus: int, share: Share, rules: Rules
) -> list[DeviceState]:
    """The devices that could hold the share if they were free."""
    if gpus > MOST_DEVICES_OF_A_SESSION:
        raise TooManyGpus(
            f"-n {gpus}: a session has at most {MOST_DEVICES_OF_A_SESSION} GPUs",
            f"ask for {min(len(devices), MOST_DEVICES_OF_A_SESSION)} or fewer",
        )
    matching = [device for device in devices if not _mismatch(device, rules)]
    if len(matching) < gpus and len(matching) < len(devices):
        raise _no_match(devices, len(matching), gpus, rules)
    if gpus > len(matching):
        have = "1 GPU" if len(devices) == 1 else f"{len(devices)} GPUs"
        raise TooManyGpus(
            f"-n {gpus}: this pool has {have}",
            f"ask for at most {len(devices)}, or see what there is: outboard gpus"
            if devices
            else "add a GPU server to the pool",
        )
    large_enough = [d for d in matching if share.of(d.capacity_bytes) <= d.capacity_bytes]
    if len(large_enough) < gpus:
        raise _too_large(matching, gpus, share)
    able = [d for d in large_enough if share.of(d.capacity_bytes) >= d.minimum_share_bytes]
    if len(able) < gpus:
        raise _too_small(large_enough, gpus, share)
    most = max(Counter(device.node for device in able).values())
    if rules.same_node and most < gpus:
        raise TooManyGpus(
            f"-n {gpus} --same-node: no server of this pool has more than {most} such GPUs",
            f"ask for at most {most}, or leave --same-node out",
        )
    return able


def _no_match(
    devices: Sequence[DeviceState], matching: int, gpus: int, rules: Rules
) -> RequestError:
    wanted = [str(condition) for condition in rules.filters]
    wanted += [f"on {rules.node}"] if rules.node else []
    wanted += [f"in pool {rules.pool}"] if rules.pool else []
    what = ", ".join(wanted) or "in the default pool"
    return NothingMatches(
        f"{matching} of the pool's {len(devices)} GPUs are {what}; {gpus} are asked for",
        "see what there is: outboard gpus --json",
    )


def _too_large(devices: Sequence[DeviceState], gpus: int, share: Share) -> RequestError:
    sizes = sorted((device.capacity_bytes for device in devices), reverse=True)
    most = sizes[gpus - 1]
    of = "the largest GPU" if gpus == 1 else f"the {gpus} largest GPUs"
    have = "has" if gpus == 1 else "have at least"
    return ShareTooLarge(
        f"-m {_amount(share)}: {of} of this pool {have} {format_mib(most)} to give",
        f"ask for at most -m {most >> 20}, or for the whole GPU by leaving -m out",
    )


def _too_small(devices: Sequence[DeviceState], gpus: int, share: Share) -> RequestError:
    least = sorted(device.minimum_share_bytes for device in devices)[gpus - 1]
    least_mib = -(-least >> 20)
    wanted = max(share.of(device.capacity_bytes) for device in devices)
    what = (
        f"-m {_amount(share)}"
        if share.amount_bytes is not None
        else f"-p {format_fraction(share.millionths or 0)} is {format_mib(wanted)}, which"
    )
    return ShareTooSmall(
        f"{what} cannot hold a CUDA context: at least {least_mib} MiB are needed",
        f"ask for -m {least_mib} or more",
    )


def _why_busy(able: Sequence[DeviceState], fitting: int, gpus: int, share: Share) -> str:
    if fitting >= gpus:
        return f"no server has {gpus} such GPUs free at once"
    closed = sum(bool(device.closed) for device in able)
    if len(able) - closed < gpus:
        first = next(device for device in able if device.closed)
        return f"{closed} of {len(able)} such GPUs are closed: {first.node}: {first.closed}"
    if share.amount_bytes is None and share.millionths in (None, 1_000_000):
        return f"{fitting} of the {gpus} GPUs asked for are free"
    most = max((device.free_bytes for device in able if not device.closed), default=0)
    if gpus == 1 and not fitting and most < share.of(able[0].capacity_bytes):
        return f"at most {format_mib(most)} of one GPU are free"
    return f"{fitting} of the {gpus} GPUs asked for have that much memory free"


Fitting = tuple[DeviceState, int]


def _choose(fitting: list[Fitting], gpus: int, rules: Rules) -> list[Fitting] | None:
    order = _emptiest if rules.spread else _best_fit
    if gpus == 1:
        return [min(fitting, key=order)]
    by_node = _by_node(sorted(fitting, key=order))
    enough = [group[:gpus] for group in by_node.values() if len(group) >= gpus]
    if rules.spread and not rules.same_node:
        return _one_of_each(list(by_node.values()), gpus)
    if enough:
        best = max if rules.spread else min
        return best(enough, key=lambda group: (_broken(group), _left_over(group), _name(group)))
    if rules.same_node:
        return None
    chosen: list[Fitting] = []
    for group in sorted(by_node.values(), key=lambda group: (-len(group), _name(group))):
        chosen += group[: gpus - len(chosen)]
    return chosen


def _one_of_each(groups: list[list[Fitting]], gpus: int) -> list[Fitting]:
    """A device of every server in turn, servers with the emptiest device first."""
    chosen: list[Fitting] = []
    turn = 0
    while len(chosen) < gpus:
        chosen += [group[turn] for group in groups if turn < len(group)][: gpus - len(chosen)]
        turn += 1
    return chosen


def _by_node(items: Iterable[Fitting]) -> dict[str, list[Fitting]]:
    by_node: dict[str, list[Fitting]] = {}
    for item in items:
        by_node.setdefault(item[0].node, []).append(item)
    return by_node


def _best_fit(item: Fitting) -> tuple[bool, int, str, int]:
    device, wanted = item
    return breaks(device, wanted), device.free_bytes - wanted, device.node, device.index


def _emptiest(item: Fitting) -> tuple[int, str, int]:
    device, wanted = item
    return wanted - device.free_bytes, device.node, device.index


def _broken(group: Iterable[Fitting]) -> int:
    """How many whole GPUs would be whole no more."""
    return sum(_best_fit(item)[0] for item in group)


def _left_over(group: Iterable[Fitting]) -> int:
    return sum(device.free_bytes - wanted for device, wanted in group)


def _name(group: Sequence[Fitting]) -> str:
    return group[0][0].node


def _amount(share: Share) -> str:
    amount = share.amount_bytes or 0
    return str(amount >> 20) if amount % (1 << 20) == 0 else f"{amount / (1 << 20):.3f}"
