"""How the ledger sees what is on a node: what is active there, what is being ended.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from outboard.errors import NotFound
from outboard.ledger.nodes import NEWEST_BASE
from outboard.ledger.schema import allocations, controllers, devices, grants, nodes, sessions
from outboard.ledger.statements import Statement
from outboard.ledger.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Standing:
    """An allocation that has not ended, with the session that it is for."""

    allocation: str
    session: str
    epoch: int
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class NodeStanding:
    """A node's state, whether it has reconciled since the ledger's newest beginning, and what has
    bytes of its devices. `healthy` is said of it and of each of its devices."""

    state: str
    reconciled: bool
    has_inventory: bool
    healthy: bool
    live: dict[str, Standing]


def node_standing(tx: Transaction, name: str) -> NodeStanding:
    """How the ledger sees one node; raises `NotFound` for one that never enrolled."""
    row = tx.one(_STATE, node=name)
    if row is None:
        raise NotFound(f"there is no node {name}", "enrol it: outboard join TOKEN")
    rows = tx.rows(_LIVE_OF_NODE, node=name)
    live = {one.allocation: one for one in map(_standing, rows)}
    reconciled = row.reconciled_base >= (row.base or 0)
    return NodeStanding(row.state, reconciled, bool(row.address), bool(row.healthy), live)


def ending(tx: Transaction) -> dict[str, list[Standing]]:
    """What is being ended, by node: each node has to say that its part is over."""
    found: dict[str, list[Standing]] = {}
    for row in tx.rows(_LIVE_ENDING):
        found.setdefault(row.node, []).append(_standing(row))
    return found


def public_keys(tx: Transaction) -> list[str]:
    """The keys (hex) that the pool's controllers sign with."""
    return sorted(str(row.public_key) for row in tx.rows(_KEYS))


def _standing(row: Any) -> Standing:
    return Standing(row.id, row.session or row.id, row.epoch, row.state, row.reason)


_STATE = Statement(
    sa.select(
        nodes.c.state,
        nodes.c.reconciled_base,
        nodes.c.address,
        (
            nodes.c.healthy
            & ~sa.exists().where(devices.c.node == nodes.c.name, sa.not_(devices.c.healthy))
        ).label("healthy"),
        NEWEST_BASE.scalar_subquery().label("base"),
    ).where(nodes.c.name == sa.bindparam("node"))
)

_KEYS = Statement(
    sa.select(controllers.c.public_key).where(
        controllers.c.revoked_us.is_(None), controllers.c.public_key != ""
    )
)

# Every allocation that has bytes on a node.
_LIVE = (
    sa.select(
        grants.c.node,
        allocations.c.id,
        allocations.c.epoch,
        allocations.c.state,
        allocations.c.reason,
        sessions.c.id.label("session"),
    )
    .join(allocations, allocations.c.id == grants.c.allocation)
    .join(sessions, sessions.c.allocation == allocations.c.id, isouter=True)
    .where(grants.c.ended_us.is_(None))
    .distinct()
    .order_by(grants.c.node, allocations.c.id)
)
_LIVE_OF_NODE = Statement(_LIVE.where(grants.c.node == sa.bindparam("node")))
_LIVE_ENDING = Statement(_LIVE.where(allocations.c.state == "ending"))
