"""Which devices a request gets: a pure function that can also say why not.

SPDX-License-Identifier: Apache-2.0

Fewest servers first (a session on one server has one stream to keep in order), then best fit: the
device with the least free memory that still fits, so that whole GPUs stay whole for who needs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from outboard.errors import RequestError, ShareTooLarge, ShareTooSmall, TooManyGpus
from outboard.model.node import MOST_DEVICES_OF_A_SESSION
from outboard.model.request import GrantedDevice, Share
from outboard.units import format_fraction, format_mib


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A device as the scheduler sees it."""

    node: str
    index: int
    name: str
    capacity_bytes: int
    granted_bytes: int
    minimum_share_bytes: int

    @property
    def free_bytes(self) -> int:
        return self.capacity_bytes - self.granted_bytes


@dataclass(frozen=True, slots=True)
class Placement:
    """The devices of a request that can be granted now."""

    devices: tuple[GrantedDevice, ...]


@dataclass(frozen=True, slots=True)
class Busy:
    """The request could be granted if others ended; `reason` says what is missing."""

    reason: str


def place(devices: Sequence[DeviceState], gpus: int, share: Share) -> Placement | Busy:
    """Choose devices for a request; raises a `RequestError` if no state of this pool could.

    Shapes: every chosen device is distinct; its share is at least its minimum and at most what is
    free of it.
    """
    able = _able(devices, gpus, share)
    fitting = [(device, share.of(device.capacity_bytes)) for device in able]
    fitting = [(device, wanted) for device, wanted in fitting if wanted <= device.free_bytes]
    if len(fitting) < gpus:
        return Busy(_why_busy(able, len(fitting), gpus, share))
    chosen = _fewest_nodes(fitting, gpus)
    return Placement(
        tuple(GrantedDevice(device.node, device.index, wanted) for device, wanted in chosen)
    )


def _able(devices: Sequence[DeviceState], gpus: int, share: Share) -> list[DeviceState]:
    """The devices that could hold the share if they were free."""
    if gpus > MOST_DEVICES_OF_A_SESSION:
        raise TooManyGpus(
            f"-n {gpus}: a session has at most {MOST_DEVICES_OF_A_SESSION} GPUs",
            f"ask for {min(len(devices), MOST_DEVICES_OF_A_SESSION)} or fewer",
        )
    if gpus > len(devices):
        have = "1 GPU" if len(devices) == 1 else f"{len(devices)} GPUs"
        raise TooManyGpus(
            f"-n {gpus}: this pool has {have}",
            f"ask for at most {len(devices)}, or see what there is: outboard gpus"
            if devices
            else "add a GPU server to the pool",
        )
    large_enough = [d for d in devices if share.of(d.capacity_bytes) <= d.capacity_bytes]
    if len(large_enough) < gpus:
        raise _too_large(devices, gpus, share)
    able = [d for d in large_enough if share.of(d.capacity_bytes) >= d.minimum_share_bytes]
    if len(able) < gpus:
        raise _too_small(large_enough, gpus, share)
    return able


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
    if share.amount_bytes is None and share.millionths in (None, 1_000_000):
        return f"{fitting} of the {gpus} GPUs asked for are free"
    most = max((device.free_bytes for device in able), default=0)
    if gpus == 1:
        return f"at most {format_mib(most)} of one GPU are free"
    return f"{fitting} of the {gpus} GPUs asked for have that much memory free"


def _fewest_nodes(
    fitting: list[tuple[DeviceState, int]], gpus: int
) -> list[tuple[DeviceState, int]]:
    by_node: dict[str, list[tuple[DeviceState, int]]] = {}
    for device, wanted in sorted(fitting, key=_best_fit):
        by_node.setdefault(device.node, []).append((device, wanted))
    enough = [group[:gpus] for group in by_node.values() if len(group) >= gpus]
    if enough:
        return min(enough, key=lambda group: (_left_over(group), group[0][0].node))
    chosen: list[tuple[DeviceState, int]] = []
    for group in sorted(by_node.values(), key=lambda group: (-len(group), group[0][0].node)):
        chosen += group[: gpus - len(chosen)]
    return chosen


def _best_fit(item: tuple[DeviceState, int]) -> tuple[int, str, int]:
    device, wanted = item
    return device.free_bytes - wanted, device.node, device.index


def _left_over(group: Iterable[tuple[DeviceState, int]]) -> int:
    return sum(device.free_bytes - wanted for device, wanted in group)


def _amount(share: Share) -> str:
    amount = share.amount_bytes or 0
    return str(amount >> 20) if amount % (1 << 20) == 0 else f"{amount / (1 << 20):.3f}"
