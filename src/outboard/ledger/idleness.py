"""Idle limits: a session that calls nothing for longer than its user, group or host may is ended.

SPDX-License-Identifier: Apache-2.0

A session is idle since the last call of any of its programs, or since its grant; work that a device
still does counts as a call, asking about memory or through NVML does not. It is warned first, and
ended only as late as the warning said. What is judged is what its servers' agents have said: one
that is silent says nothing of idleness, so the time that counts is when it was heard of last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from outboard.ledger import allocations as of_allocations
from outboard.ledger import limits
from outboard.ledger.schema import allocations, grants, nodes, sessions
from outboard.ledger.schema import limits as limit_table
from outboard.ledger.statements import Statement
from outboard.ledger.transaction import Transaction
from outboard.units import MILLION, format_duration

# How the reason of every end by such a limit begins.
REASON = "idle for "

_LONGEST_WARNING_US = 300 * MILLION


@dataclass(frozen=True, slots=True)
class Idleness:
    """An allocation that a limit says something of: `idle_us` of `limit_us` are over.

    `warned_us` is its last warning, `warned` whether that was for this idleness.
    """

    allocation: str
    session: str
    idle_us: int
    limit_us: int
    whose: str
    warned_us: int | None = None
    warned: bool = False
    over: bool = False

    @property
    def warning_us(self) -> int:
        """How long before the end it is warned."""
        return min(_LONGEST_WARNING_US, self.limit_us // 5)

    @property
    def to_warn(self) -> bool:
        return not self.warned and self.idle_us >= self.limit_us - self.warning_us

    @property
    def reason(self) -> str:
        """Why it ends, as its user is told."""
        idle = format_duration(self.idle_us / MILLION)
        limit = format_duration(self.limit_us / MILLION)
        return f"{REASON}{idle}: {self.whose} may keep GPUs without a call for {limit}"

    @property
    def notice(self) -> str:
        """What its holder is told before; empty while there is nothing to say."""
        if not (self.warned or self.to_warn):
            return ""
        left_us = max(0, self.limit_us - self.idle_us, 0 if self.warned else self.warning_us)
        return (
            f"session {self.session} has called nothing for"
            f" {format_duration(self.idle_us / MILLION)}: it ends in about"
            f" {format_duration(left_us / MILLION)} unless a program uses its GPUs"
        )


def note_use(tx: Transaction, unused_us: Mapping[str, int]) -> None:
    """Note how long ago programs of these allocations called last, as an agent says now."""
    told = [
        {"of_allocation": name, "at_us": tx.now_us - amount_us}
        for name, amount_us in sorted(unused_us.items())
    ]
    if told:
        tx.connection.execute(_NOTE, told)


_NOTE = (
    allocations.update()
    .where(
        allocations.c.id == sa.bindparam("of_allocation"),
        allocations.c.used_us < sa.bindparam("at_us"),
    )
    .values(used_us=sa.bindparam("at_us"))
)


def judge(tx: Transaction, allocation: str | None = None) -> list[Idleness]:
    """What idle limits say of the active allocations, or of one; nothing of those far from it."""
    least_s = tx.one(_LEAST).seconds
    if least_s is None:
        return []
    last_us = sa.case(
        (allocations.c.used_us > allocations.c.started_us, allocations.c.used_us),
        else_=allocations.c.started_us,
    )
    heard_us = (
        sa.select(sa.func.min(nodes.c.seen_us))
        .join(grants, grants.c.node == nodes.c.name)
        .where(grants.c.allocation == allocations.c.id, grants.c.ended_us.is_(None))
        .scalar_subquery()
    )
    statement = (
        sa.select(
            allocations.c.id,
            allocations.c.user_name,
            allocations.c.groups,
            allocations.c.host,
            allocations.c.idle_warned_us,
            last_us.label("last_us"),
            heard_us.label("heard_us"),
            sessions.c.id.label("session"),
        )
        .join(sessions, sessions.c.allocation == allocations.c.id)
        .where(allocations.c.state == "active")
        .order_by(allocations.c.id)
    )
    if allocation is not None:
        statement = statement.where(allocations.c.id == allocation)
    found = []
    for row in tx.connection.execute(statement):
        idle_us = (row.heard_us or 0) - row.last_us
        if idle_us * 5 < least_s * MILLION * 4:
            continue
        subjects = limits.subjects_of(row.user_name, row.groups.split(), row.host)
        limit = limits.smallest(limits.in_force(tx, subjects), "idle_s")
        if limit is not None and limit.value is not None:
            found.append(_idleness(row, idle_us, limit, tx.now_us))
    return found


_LEAST = Statement(
    sa.select(sa.func.min(limit_table.c.value).label("seconds")).where(
        limit_table.c.kind == "idle_s"
    )
)


def warn(tx: Transaction, allocation: str) -> bool:
    """Note that its holder is being warned; False if it need not be, or was already."""
    for one in judge(tx, allocation):
        if not one.to_warn:
            return False
        noted = tx.connection.execute(
            allocations.update()
            .where(
                allocations.c.id == allocation,
                allocations.c.idle_warned_us.is_not_distinct_from(one.warned_us),
            )
            .values(idle_warned_us=tx.now_us)
        )
        if noted.rowcount:
            tx.audit(
                "controller",
                "idle.warning",
                one.session,
                idle_s=one.idle_us // MILLION,
                limit_s=one.limit_us // MILLION,
            )
            tx.changed("session", one.session)
        return bool(noted.rowcount)
    return False


def end_idle(tx: Transaction, allocation: str) -> bool:
    """Begin to end an allocation if it is idle for too long by what is known now."""
    for one in judge(tx, allocation):
        if one.over:
            return of_allocations.begin_end(tx, allocation, of_allocations.BY_RULE, one.reason)
    return False


def _idleness(row: Any, idle_us: int, limit: limits.Limit, now_us: int) -> Idleness:
    limit_us = (limit.value or 0) * MILLION
    one = Idleness(row.id, row.session, idle_us, limit_us, " ".join(limit.subject))
    if row.idle_warned_us is None:
        return one
    # A warning from before it was last used was of another time.
    warned = row.idle_warned_us >= row.last_us + limit_us - one.warning_us
    over = warned and idle_us >= limit_us and now_us >= row.idle_warned_us + one.warning_us
    return replace(one, warned_us=row.idle_warned_us, warned=warned, over=over)
