"""Accounts: what was held, exactly, and what was used, as far as it is known.

SPDX-License-Identifier: Apache-2.0

*Held* is the sum over grant rows of bytes times the microseconds that a row shares with the
interval: whole numbers, so that sums by user and sums by device are the same to the last unit.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from outboard.errors import MalformedRequest
from outboard.ledger.rows import insert_new
from outboard.ledger.schema import allocations, devices, grants, sessions, usage
from outboard.ledger.statements import Statement
from outboard.ledger.transaction import Transaction
from outboard.units import MILLION

DAY_US = 86_400_000_000
KEYS = ("user", "device", "node", "session", "host", "day")
# Of what was used there is more to say: whose process it was.
USED_KEYS = (*KEYS, "uid", "process")


@dataclass(frozen=True, slots=True)
class Held:
    """One line of an account: its keys, byte-microseconds, and GPU time weighted by share.

    `gpu_ppm_us` is in millionths of a GPU times microseconds; a share is rounded down to whole
    millionths once, so that these sums match to the last unit as well.
    """

    keys: tuple[str, ...]
    byte_us: int
    gpu_ppm_us: int


def held(tx: Transaction, since_us: int, until_us: int, by: Sequence[str]) -> list[Held]:
    """What was held in [since, until), grouped by some of `KEYS`, in the order of the keys.

    What is still held counts up to now; days are UTC's.
    """
    check_keys(by, KEYS)
    until_us = min(until_us, tx.now_us)
    sums: dict[tuple[str, ...], list[int]] = {}
    for row in _rows(tx, since_us, until_us):
        first = max(since_us, row.started_us)
        last = until_us if row.ended_us is None else min(until_us, row.ended_us)
        for start, end in _days(first, last) if "day" in by else [(first, last)]:
            if end <= start:
                continue
            total = sums.setdefault(_keys(row, start, by), [0, 0])
            total[0] += row.share_bytes * (end - start)
            total[1] += row.share_bytes * MILLION // max(1, row.capacity_bytes) * (end - start)
    return [Held(keys, total[0], total[1]) for keys, total in sorted(sums.items())]


def _rows(tx: Transaction, since_us: int, until_us: int) -> sa.CursorResult[tuple[object, ...]]:
    statement = (
        sa.select(
            grants.c.user_name,
            grants.c.node,
            grants.c.idx,
            grants.c.share_bytes,
            grants.c.started_us,
            grants.c.ended_us,
            grants.c.allocation,
            allocations.c.host,
            devices.c.capacity_bytes,
            sessions.c.id.label("session"),
        )
        .join(allocations, allocations.c.id == grants.c.allocation)
        .join(devices, sa.and_(devices.c.node == grants.c.node, devices.c.idx == grants.c.idx))
        .join(sessions, sessions.c.allocation == grants.c.allocation, isouter=True)
        .where(grants.c.started_us < until_us)
        .where(sa.or_(grants.c.ended_us.is_(None), grants.c.ended_us > since_us))
    )
    return tx.connection.execute(statement)


def _keys(row: sa.Row[tuple[object, ...]], start_us: int, by: Sequence[str]) -> tuple[str, ...]:
    found = {
        "user": row.user_name,
        "device": f"{row.node}/{row.idx}",
        "node": row.node,
        "session": row.session or row.allocation,
        "host": row.host or "",
        "day": _day(start_us) if "day" in by else "",
    }
    return tuple(str(found[key]) for key in by)


def _days(first_us: int, last_us: int) -> list[tuple[int, int]]:
    """An interval cut at midnight UTC."""
    pieces = []
    while first_us < last_us:
        midnight = (first_us // DAY_US + 1) * DAY_US
        pieces.append((first_us, min(last_us, midnight)))
        first_us = midnight
    return pieces


def _day(at_us: int) -> str:
    return dt.datetime.fromtimestamp(at_us // 1_000_000, dt.UTC).strftime("%Y-%m-%d")


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


@dataclass(frozen=True, slots=True)
class Used:
    """One line of what was used: device time, calls, the most that one process held at once."""

    keys: tuple[str, ...]
    busy_us: int
    calls: int
    peak_bytes: int
    processes: int


def used(tx: Transaction, since_us: int, until_us: int, by: Sequence[str]) -> list[Used]:
    """What was used in [since, until), grouped by some of `USED_KEYS`, in the order of the keys.

    A process that ran before, after or past midnight counts by the part of its time: workers count
    sums, not when. What they did not count is left out.
    """
    check_keys(by, USED_KEYS)
    until_us = min(until_us, tx.now_us)
    sums: dict[tuple[str, ...], list[int]] = {}
    workers: dict[tuple[str, ...], set[str]] = {}
    for row in _uses(tx, since_us, until_us):
        ended_us = max(tx.now_us if row.ended_us is None else row.ended_us, row.started_us + 1)
        first, last = max(since_us, row.started_us), min(until_us, ended_us)
        for start, end in _days(first, last) if "day" in by else [(first, last)]:
            keys = _used_keys(row, start, by)
            total = sums.setdefault(keys, [0, 0, 0])
            part, whole = max(0, end - start), ended_us - row.started_us
            total[0] += (row.busy_us or 0) * part // whole
            total[1] += (row.calls or 0) * part // whole
            total[2] = max(total[2], row.peak_bytes or 0)
            workers.setdefault(keys, set()).add(row.worker)
    return [
        Used(keys, total[0], total[1], total[2], len(workers[keys]))
        for keys, total in sorted(sums.items())
    ]


def check_keys(by: Sequence[str], allowed: Sequence[str]) -> None:
    """Raises `MalformedRequest` for keys that accounts do not have, or have twice."""
    if [key for key in by if key not in allowed] or len(set(by)) != len(by):
        raise MalformedRequest(
            f"usage cannot be grouped by {', '.join(by)}", f"use {', '.join(allowed)}"
        )


def _uses(tx: Transaction, since_us: int, until_us: int) -> sa.CursorResult[tuple[object, ...]]:
    statement = (
        sa.select(usage, sessions.c.user_name, sessions.c.host)
        .join(sessions, sessions.c.id == usage.c.session)
        .where(usage.c.started_us < until_us)
        .where(sa.or_(usage.c.ended_us.is_(None), usage.c.ended_us > since_us))
        .order_by(usage.c.id)
    )
    return tx.connection.execute(statement)


def _used_keys(
    row: sa.Row[tuple[object, ...]], start_us: int, by: Sequence[str]
) -> tuple[str, ...]:
    found = {
        "user": row.user_name,
        "device": f"{row.node}/{row.idx}",
        "node": row.node,
        "session": row.session,
        "host": row.host or "",
        "day": _day(start_us) if "day" in by else "",
        "uid": row.uid,
        "process": f"{row.pid} {row.program}".strip(),
    }
    return tuple(str(found[key]) for key in by)
