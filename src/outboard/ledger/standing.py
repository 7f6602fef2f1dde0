"""How the ledger sees what is on a node: what is active there, what is being ended.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from outboard.errors import NotFound
from outboard.ledger.nodes import NEWEST_BASE
from outboard.ledger.schema import allocations, controllers, devices, grants, nodes, sessions
from outboard.ledger.statements import Answer, Statement
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
    """A node's state, whether it has reconciled since the ledger's newest beginning, what has bytes
    of its devices, and what it is told of the pool's controllers. `healthy` is said of it and of
    each of its devices."""

    state: str
    reconciled: bool
    has_inventory: bool
    healthy: bool
    live: dict[str, Standing]
    pool: dict[str, list[str]]

    def without(self, released: Collection[str]) -> NodeStanding:
        """The same once the node's part of these has been released, if they were ending."""
        live = {
            name: one
            for name, one in self.live.items()
            if not (name in released and one.state == "ending")
        }
        return replace(self, live=live)


def node_standing(tx: Transaction, name: str) -> NodeStanding:
    """How the ledger sees one node; raises `NotFound` for one that never enrolled."""
    return ask_standing(tx, name)()


def ask_standing(tx: Transaction, name: str) -> Callable[[], NodeStanding]:
    """What `node_standing` says of this moment, told later."""
    state, live = tx.ask(_STATE, node=name), tx.ask(_LIVE_OF_NODE, node=name)
    pool = tx.ask(_CONTROLLERS)

    def found() -> NodeStanding:
        row = state.one()
        if row is None:
            raise NotFound(f"there is no node {name}", "enrol it: outboard join TOKEN")
        return NodeStanding(
            row.state,
            row.reconciled_base >= (row.base or 0),
            bool(row.address),
            bool(row.healthy),
            {one.allocation: one for one in map(_standing, live.rows())},
            _told(pool),
        )

    return found


def ending(tx: Transaction) -> dict[str, list[Standing]]:
    """What is being ended, by node: each node has to say that its part is over."""
    found: dict[str, list[Standing]] = {}
    for row in tx.rows(_LIVE_ENDING):
        found.setdefault(row.node, []).append(_standing(row))
    return found


def controllers_told(tx: Transaction) -> dict[str, list[str]]:
    """What agents are told of the pool's controllers: the keys (hex) that they sign with, and
    where they are called."""
    return _told(tx.ask(_CONTROLLERS))


def _told(answer: Answer) -> dict[str, list[str]]:
    rows = answer.rows()
    return {
        "keys": sorted(str(row.public_key) for row in rows),
        "controllers": sorted(str(row.address) for row in rows if row.address),
    }


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

_CONTROLLERS = Statement(
    sa.select(controllers.c.public_key, controllers.c.address).where(
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
