"""Accounts of the ledger: the grants' spans and what workers counted, for `model.account`.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from outboard.ledger.rows import insert_new
from outboard.ledger.schema import allocations, devices, grants, sessions, usage
from outboard.ledger.statements import Statement
from outboard.ledger.transaction import Transaction
from outboard.model.account import (
    KEYS,
    USED_KEYS,
    Held,
    Process,
    Span,
    Used,
    check_keys,
    sum_held,
    sum_used,
)


def held(tx: Transaction, since_us: int, until_us: int, by: Sequence[str]) -> list[Held]:
    """What was held in [since, until), grouped by some of `KEYS`; what still is, up to now."""
    check_keys(by, KEYS)
    until_us = min(until_us, tx.now_us)
    return sum_held(_spans(tx, since_us, until_us), since_us, until_us, by)


def _spans(tx: Transaction, since_us: int, until_us: int) -> Iterator[Span]:
    statement = (
        sa.select(
            grants.c.user_name,
            grants.c.node,
            grants.c.idx,
            sa.func.coalesce(sessions.c.id, grants.c.allocation).label("session"),
            allocations.c.host,
            grants.c.share_bytes,
            devices.c.capacity_bytes,
            grants.c.started_us,
            grants.c.ended_us,
        )
        .join(allocations, allocations.c.id == grants.c.allocation)
        .join(devices, sa.and_(devices.c.node == grants.c.node, devices.c.idx == grants.c.idx))
        .join(sessions, sessions.c.allocation == grants.c.allocation, isouter=True)
        .where(grants.c.started_us < until_us)
        .where(sa.or_(grants.c.ended_us.is_(None), grants.c.ended_us > since_us))
    )
    return (Span(*row) for row in tx.connection.execute(statement))


@dataclass(frozen=True, slots=True)
class Use:
    """What a worker counted for one program on one device, as its node's agent says."""

    worker: str
    node: str
    idx: int
    session: str
    allocation: str
    uid: int
    pid: int
    program: str
    started_us: int
    ended_us: int | None
    busy_us: int
    calls: int
    peak_bytes: int


def record_usage(tx: Transaction, uses: Iterable[Use]) -> None:
    """Take in what workers counted; a later report of the same worker replaces the earlier.

    Only of devices that the allocation was granted on that node: an agent speaks of no others.
    """
    rows = {(one.worker, one.node, one.idx): one for one in uses}
    granted = _granted(tx, {one.allocation for one in rows.values()})
    rows = {
        key: one
        for key, one in sorted(rows.items())
        if (one.session, one.allocation, one.node, one.idx) in granted
    }
    named = sa.select(usage.c.worker, usage.c.node, usage.c.idx).where(
        usage.c.worker.in_(sorted({one.worker for one in rows.values()}))
    )
    known = {tuple(row) for row in tx.connection.execute(named)}
    told = {key: asdict(one) for key, one in rows.items()}
    for row in told.values():
        del row["allocation"]
    # Another controller may have made one of them since.
    insert_new(tx, usage, [row for key, row in told.items() if key not in known])
    again = [
        {f"new_{name}": row[name] for name in ("worker", "node", "idx", *_COUNTED)}
        for key, row in told.items()
        if key in known
    ]
    if again:
        tx.connection.execute(_COUNT_AGAIN, again)


_COUNTED = ("ended_us", "busy_us", "calls", "peak_bytes")
# The last word is the last, whatever was still on its way.
_COUNT_AGAIN = (
    usage.update()
    .where(*(usage.c[name] == sa.bindparam(f"new_{name}") for name in ("worker", "node", "idx")))
    .where(usage.c.ended_us.is_(None))
    .values({name: sa.bindparam(f"new_{name}") for name in _COUNTED})
)


def close_usage(tx: Transaction, allocation: str, node: str) -> None:
    """No program of the allocation runs on the node any more: what nobody said the end of, ended
    now at the latest."""
    told = {"of_allocation": allocation, "of_node": node, "at_us": tx.now_us}
    tx.later(_CLOSE_USAGE, told)


_CLOSE_USAGE = Statement(
    usage.update()
    .where(
        usage.c.node == sa.bindparam("of_node"),
        usage.c.ended_us.is_(None),
        usage.c.session.in_(
            sa.select(sessions.c.id).where(sessions.c.allocation == sa.bindparam("of_allocation"))
        ),
    )
    .values(ended_us=sa.bindparam("at_us"))
)


def _granted(tx: Transaction, names: set[str]) -> set[tuple[str, str, str, int]]:
    """(session, allocation, node, device) of everything that was granted under these names."""
    statement = (
        sa.select(sessions.c.id, grants.c.allocation, grants.c.node, grants.c.idx)
        .join(sessions, sessions.c.allocation == grants.c.allocation)
        .where(grants.c.allocation.in_(sorted(names)))
        .distinct()
    )
    return {(row.id, row.allocation, row.node, row.idx) for row in tx.connection.execute(statement)}


def processes(tx: Transaction, since_us: int, until_us: int) -> list[dict[str, object]]:
    """What workers counted in processes that ran in the interval; None is "not known"."""
    return [dict(row) for row in _uses(tx, since_us, until_us).mappings()]


def used(tx: Transaction, since_us: int, until_us: int, by: Sequence[str]) -> list[Used]:
    """What was used in [since, until), grouped by some of `USED_KEYS`."""
    check_keys(by, USED_KEYS)
    until_us = min(until_us, tx.now_us)
    found = (
        Process(**{name: row[name] for name in Process.__dataclass_fields__})
        for row in _uses(tx, since_us, until_us).mappings()
    )
    return sum_used(found, since_us, until_us, by, tx.now_us)


def _uses(tx: Transaction, since_us: int, until_us: int) -> sa.CursorResult[tuple[object, ...]]:
    statement = (
        sa.select(usage, sessions.c.user_name, sessions.c.host)
        .join(sessions, sessions.c.id == usage.c.session)
        .where(usage.c.started_us < until_us)
        .where(sa.or_(usage.c.ended_us.is_(None), usage.c.ended_us > since_us))
        .order_by(usage.c.id)
    )
    return tx.connection.execute(statement)
