"""Accounts: what was held, exactly, and what was used, as far as it is known.

SPDX-License-Identifier: Apache-2.0

*Held* is the sum over grant rows of bytes times the microseconds that a row shares with the
interval: whole numbers, so that sums by user and sums by device are the same to the last unit.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from outboard.errors import MalformedRequest
from outboard.ledger.schema import allocations, devices, grants, sessions, usage
from outboard.ledger.transaction import Transaction
from outboard.units import MILLION

DAY_US = 86_400_000_000
KEYS = ("user", "device", "node", "session", "host", "day")


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
    unknown = [key for key in by if key not in KEYS]
    if unknown or len(set(by)) != len(by):
        raise MalformedRequest(f"usage cannot be grouped by {', '.join(by)}", f"use {KEYS}")
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


def record_usage(tx: Transaction, reports: Sequence[dict[str, object]]) -> None:
    """Take in what workers counted; a later report of the same worker replaces the earlier."""
    for report in sorted(reports, key=lambda one: (str(one["worker"]), str(one["node"]))):
        where = sa.and_(
            usage.c.worker == report["worker"],
            usage.c.node == report["node"],
            usage.c.idx == report["idx"],
        )
        if not tx.connection.execute(usage.update().where(where).values(report)).rowcount:
            tx.connection.execute(usage.insert().values(report))


def used(tx: Transaction, since_us: int, until_us: int) -> list[dict[str, object]]:
    """What workers counted in processes that ran in the interval; None is "not known"."""
    statement = (
        sa.select(usage, sessions.c.user_name)
        .join(sessions, sessions.c.id == usage.c.session)
        .where(usage.c.started_us < until_us)
        .where(sa.or_(usage.c.ended_us.is_(None), usage.c.ended_us > since_us))
        .order_by(usage.c.id)
    )
    return [dict(row) for row in tx.connection.execute(statement).mappings()]
