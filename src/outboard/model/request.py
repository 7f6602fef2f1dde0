"""What a user asks for, and what became of it: request, allocation, lease, session.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from outboard.errors import MalformedRequest
from outboard.model.filters import Filter
from outboard.units import MILLION

MOST_FILTERS = 32
MOST_PRIORITY = 1000


@dataclass(frozen=True, slots=True)
class Share:
    """How much of each GPU: a fraction in millionths, or bytes; neither means all of it."""

    millionths: int | None = None
    amount_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.millionths is not None and self.amount_bytes is not None:
            raise MalformedRequest("a share is a fraction or an amount, not both")
        if self.millionths is not None and not 0 < self.millionths <= MILLION:
            raise MalformedRequest("a fraction is above 0 and at most 1")
        if self.amount_bytes is not None and not 0 < self.amount_bytes < 1 << 62:
            raise MalformedRequest("an amount of memory is above 0")

    def of(self, capacity_bytes: int) -> int:
        """The bytes that this share is of a device with that capacity.

        A fraction is rounded down to whole MiB, so that what is shown is what is had and n shares
        of 1/n fit on one device.
        """
        if self.amount_bytes is not None:
            return self.amount_bytes
        if self.millionths is None or self.millionths == MILLION:
            return capacity_bytes
        return (capacity_bytes * self.millionths // MILLION) >> 20 << 20


def is_holder_hash(text: str) -> bool:
    """Whether this is a SHA-256 in hexadecimal digits."""
    return len(text) == 64 and not text.strip("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Request:
    """A wish for GPUs. `id` is made by the client: a repeated request gets the same grant.

    `spread` asks for the emptiest devices instead of the fullest that fit; `node` for that server
    alone; `pool` for nodes of that pool; `wanted_s` says how long it will take, if it is known.
    `holder_sha256` is the hash of a secret of the holder, who renews with it; without one, the
    connection of the request holds the lease.
    """

    id: str
    gpus: int
    share: Share
    wait_s: float | None
    uid: int
    pid: int
    program: str
    user: str = ""
    host: str | None = None
    filters: tuple[Filter, ...] = ()
    spread: bool = False
    same_node: bool = False
    node: str = ""
    pool: str = ""
    name: str = ""
    priority: int = 0
    wanted_s: float | None = None
    holder_sha256: str = ""

    def __post_init__(self) -> None:
        if len(self.id) != 32 or self.id.strip("0123456789abcdef"):
            raise MalformedRequest("a request's id is 32 hexadecimal digits")
        if self.gpus < 1:
            raise MalformedRequest("a request asks for at least one GPU")
        if len(self.filters) > MOST_FILTERS:
            raise MalformedRequest(f"a request has at most {MOST_FILTERS} filters")
        if not -MOST_PRIORITY <= self.priority <= MOST_PRIORITY:
            raise MalformedRequest(f"a priority is from -{MOST_PRIORITY} to {MOST_PRIORITY}")
        if not is_holder_hash(self.holder_sha256) and self.holder_sha256:
            raise MalformedRequest("holder_sha256 is not 64 hexadecimal digits")


@dataclass(frozen=True, slots=True)
class GrantedDevice:
    """A device of an allocation with the bytes that are granted of it."""

    node: str
    index: int
    share_bytes: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """What a request was granted. `epoch` rises when it is taken over, resized or moved."""

    id: str
    request: str
    epoch: int
    devices: tuple[GrantedDevice, ...]


class SessionState(Enum):
    """A session is active, then ending until its last worker is gone, then forgotten."""

    ACTIVE = "active"
    ENDING = "ending"


@dataclass(slots=True)
class Lease:
    """Who keeps the allocation alive: the holder, or programs that outlive it.

    The holder is a connection, or whoever has the secret behind `holder_sha256` and renews in time.
    """

    held: bool
    programs: int = 0
    holder_sha256: str = ""
    expires_s: float = 0.0  # on the event loop's clock, where the holder has a secret

    @property
    def alive(self) -> bool:
        return self.held or self.programs > 0


@dataclass(slots=True)
class Session:
    """What one user's programs use: an allocation, its lease and its state."""

    id: str
    request: Request
    allocation: Allocation
    lease: Lease
    state: SessionState
    started_unix: float
