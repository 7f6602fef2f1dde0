"""What was granted: devices of allocations, their counters, what sessions are told of them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from outboard.errors import NotFound
from outboard.ledger.rows import Row, any_of, insert
from outboard.ledger.schema import allocations, devices, grants, nodes, sessions
from outboard.ledger.statements import Statement
from outboard.ledger.transaction import Transaction
from outboard.model.request import GrantedDevice

# Devices, by server and index, with what sessions are told of them and of their servers.
Described = Mapping[tuple[str, int], Any]


@dataclass(frozen=True, slots=True)
class Granted:
    """What a request was granted, as the ledger has it; `described` if it was granted just now."""

    request: str
    session: str
    allocation: str
    epoch: int
    devices: tuple[GrantedDevice, ...]
    started_us: int
    end_by_us: int | None
    state: str
    uid: int = 0
    described: Described = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Lost:
    """The chosen devices cannot be granted any more; the chooser's image is behind."""

    reason: str


def keys_of(chosen: Sequence[GrantedDevice]) -> list[tuple[str, int]]:
    """Devices' keys, in the order of locks."""
    return sorted({(device.node, device.index) for device in chosen})


def add_granted(tx: Transaction, more: Sequence[tuple[str, int, int]]) -> None:
    """Change devices' counters by (node, index, bytes), locked in the order of their keys; the
    counter's CHECK refuses what must never be."""
    told = [
        {"of_node": node, "of_index": index, "more_bytes": amount}
        for node, index, amount in sorted(more)
    ]
    tx.later(_ADD, *told)
    for one in told:
        tx.changed("device", f"{one['of_node']}/{one['of_index']}")


_ADD = Statement(
    devices.update()
    .where(devices.c.node == sa.bindparam("of_node"), devices.c.idx == sa.bindparam("of_index"))
    .values(granted_bytes=devices.c.granted_bytes + sa.bindparam("more_bytes", type_=sa.BigInteger))
)


def insert_grants(
    tx: Transaction, allocation: str, user: str, epoch: int, chosen: Sequence[GrantedDevice]
) -> None:
    """A live row for each device of an allocation, in the order that its programs see them."""
    rows: list[Row] = [
        {
            "allocation": allocation,
            "ordinal": ordinal,
            "epoch": epoch,
            "node": device.node,
            "idx": device.index,
            "user_name": user,
            "share_bytes": device.share_bytes,
            "started_us": tx.now_us,
        }
        for ordinal, device in enumerate(chosen)
    ]
    insert(tx, grants, rows)


def granted_of(tx: Transaction, request_id: str) -> Granted:
    """What a granted request has; the devices are those of its newest rows."""
    row = tx.one(_GRANTED, request=request_id)
    if row is None:
        raise NotFound(f"request {request_id} has no allocation")
    return Granted(
        request_id,
        row.session or "",
        row.id,
        row.epoch,
        granted_devices(tx, row.id),
        row.started_us,
        row.end_by_us,
        row.state,
        row.uid or 0,
    )


_GRANTED = Statement(
    sa.select(allocations, sessions.c.id.label("session"), sessions.c.uid)
    .join(sessions, sessions.c.allocation == allocations.c.id, isouter=True)
    .where(allocations.c.request == sa.bindparam("request"))
)


def granted_devices(tx: Transaction, allocation: str) -> tuple[GrantedDevice, ...]:
    """An allocation's devices as it has them, or had them last."""
    newest = {row.ordinal: row for row in tx.rows(_GRANTED_DEVICES, allocation=allocation)}
    return tuple(GrantedDevice(row.node, row.idx, row.share_bytes) for row in newest.values())


_GRANTED_DEVICES = Statement(
    sa.select(grants.c.ordinal, grants.c.node, grants.c.idx, grants.c.share_bytes)
    .where(grants.c.allocation == sa.bindparam("allocation"))
    .order_by(grants.c.ordinal, grants.c.epoch)
)


def describe(tx: Transaction, made: Granted) -> Described:
    """What the session of a grant is told of its devices."""
    if made.described:
        return made.described
    found = tx.rows(_DESCRIBED, keys=keys_of(made.devices))
    return {(row.node, row.idx): row for row in found}


DESCRIPTION = (
    *(devices.c.node, devices.c.idx, devices.c.uuid, devices.c.name, devices.c.total_bytes),
    *(nodes.c.address, nodes.c.tls, nodes.c.software, nodes.c.key_sealed),
)
_DESCRIBED = Statement(
    sa.select(*DESCRIPTION)
    .join(nodes, nodes.c.name == devices.c.node)
    .where(any_of("keys", devices.c.node, devices.c.idx)),
    "keys",
)
