"""How the ledger sees what is on a node: what is active there, what is being ended.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from outboard.errors import NotFound
from outboard.ledger.nodes import epoch_base
from outboard.ledger.schema import allocations, controllers, grants, nodes, sessions
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
    bytes of its devices."""

    state: str
    reconciled: bool
    has_inventory: bool
    live: dict[str, Standing]


def node_standing(tx: Transaction, name: str) -> NodeStanding:
    """How the ledger sees one node; raises `NotFound` for one that never enrolled."""
    row = tx.connection.execute(
        sa.select(nodes.c.state, nodes.c.reconciled_base, nodes.c.address).where(
            nodes.c.name == name
        )
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no node {name}", "enrol it: outboard join TOKEN")
    live = {found.allocation: found for _, found in _live(tx, [grants.c.node == name])}
    return NodeStanding(row.state, row.reconciled_base >= epoch_base(tx), bool(row.address), live)


def ending(tx: Transaction) -> dict[str, list[Standing]]:
    """What is being ended, by node: each node has to say that its part is over."""
    found: dict[str, list[Standing]] = {}
    for node, standing in _live(tx, [allocations.c.state == "ending"]):
        found.setdefault(node, []).append(standing)
    return found


def public_keys(tx: Transaction) -> list[str]:
    """The keys (hex) that the pool's controllers sign with."""
    statement = sa.select(controllers.c.public_key).where(
        controllers.c.revoked_us.is_(None), controllers.c.public_key != ""
    )
    return sorted(tx.connection.execute(statement).scalars())


def _live(
    tx: Transaction, conditions: Iterable[sa.ColumnElement[bool]]
) -> list[tuple[str, Standing]]:
    """(node, standing) of every allocation that has bytes on a node."""
    statement = (
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
        .where(grants.c.ended_us.is_(None), *conditions)
        .distinct()
        .order_by(grants.c.node, allocations.c.id)
    )
    return [
        (row.node, Standing(row.id, row.session or row.id, row.epoch, row.state, row.reason))
        for row in tx.connection.execute(statement)
    ]
