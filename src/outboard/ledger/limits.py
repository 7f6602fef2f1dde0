"""Limits of users, groups and hosts, and the counters that enforce them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from outboard.errors import LimitReached, MalformedRequest
from outboard.ledger.rows import any_of, insert_new, locked, locking
from outboard.ledger.schema import limit_use, limits
from outboard.ledger.statements import Answer, Statement
from outboard.ledger.transaction import Transaction
from outboard.units import format_mib

COUNTED = ("bytes", "gpus", "sessions")
KINDS = (*COUNTED, "session_s", "idle_s", "priority", "pools")
DEFAULT = "*"
_LIMITS_LOCK = 0x6F75746C696D6974

Subject = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Use:
    """What is counted for a subject; also an amount to add or take away."""

    gpus: int = 0
    bytes: int = 0
    sessions: int = 0

    def __neg__(self) -> Use:
        return Use(-self.gpus, -self.bytes, -self.sessions)

    def of(self, kind: str) -> int:
        return int(getattr(self, kind))


def subjects_of(user: str, groups: Iterable[str], host: str | None) -> list[Subject]:
    """Everyone whose limits a request of this user on this host counts against, in lock order."""
    named = [("user", user), *(("group", group) for group in groups)]
    return sorted([*named, *([("host", host)] if host else [])])


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit in force: whose, of what, how much (`value`) or which (`names`)."""

    subject: Subject
    kind: str
    value: int | None
    names: str


def ask_in_force(tx: Transaction, subjects: Sequence[Subject]) -> Answer:
    """What `in_force` judges by."""
    kinds = {kind for kind, _ in subjects}
    wanted = [*subjects, *((kind, DEFAULT) for kind in kinds)]
    return tx.ask(_IN_FORCE, subjects=wanted)


def in_force(
    tx: Transaction, subjects: Sequence[Subject], asked: Answer | None = None
) -> list[Limit]:
    """Each subject's own limits and, where it has none of a kind, those of its kind's default."""
    rows = (asked or ask_in_force(tx, subjects)).rows()
    if not rows:
        return []
    said = {(row.subject_kind, row.subject, row.kind): row for row in rows}
    found = []
    for subject_kind, subject in subjects:
        for kind in KINDS:
            row = said.get((subject_kind, subject, kind)) or said.get((subject_kind, DEFAULT, kind))
            if row is not None:
                found.append(Limit((subject_kind, subject), kind, row.value, row.names))
    return found


_IN_FORCE = Statement(
    sa.select(limits).where(any_of("subjects", limits.c.subject_kind, limits.c.subject)),
    "subjects",
)


def smallest(found: Iterable[Limit], kind: str) -> Limit | None:
    """The limit of a kind that leaves the least, of all that apply."""
    valued = [limit for limit in found if limit.kind == kind and limit.value is not None]
    return min(valued, key=lambda limit: limit.value or 0, default=None)


def set_limit(
    tx: Transaction, subject: Subject, kind: str, value: int | None, names: str = ""
) -> None:
    """Set a limit, or with neither `value` nor `names` take it away. Ends nothing that runs."""
    if kind not in KINDS or subject[0] not in ("user", "group", "host") or not subject[1]:
        raise MalformedRequest(
            f"there is no limit {kind} of a {subject[0]}", f"limits are {', '.join(KINDS)}"
        )
    if (kind == "pools" and value is not None) or (kind != "pools" and names):
        raise MalformedRequest(f"the limit {kind} takes {'names' if value else 'a number'}")
    if value is not None and value < 0 and kind != "priority":
        raise MalformedRequest(f"the limit {kind} cannot be below 0")
    _one_at_a_time(tx)
    where = _is(limits, subject, kind)
    tx.connection.execute(limits.delete().where(where))
    if value is not None or names:
        row = {"subject_kind": subject[0], "subject": subject[1], "kind": kind}
        more = {"value": value, "names": names, "set_us": tx.now_us}
        tx.connection.execute(limits.insert().values(**row, **more))
    if kind in COUNTED:
        _apply(tx, subject, kind)
    tx.changed("limit", f"{subject[0]}/{subject[1]}/{kind}")


def _one_at_a_time(tx: Transaction) -> None:
    """Whoever makes counters and whoever sets limits wait for each other: else a counter could be
    made from the limits of before while a new one looks for counters to apply to."""
    if tx.dialect == "postgresql":
        tx.connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LIMITS_LOCK)))


def _apply(tx: Transaction, subject: Subject, kind: str) -> None:
    """Bring the counters' maxima in line with what is in force now."""
    condition = (limit_use.c.subject_kind == subject[0]) & (limit_use.c.kind == kind)
    if subject[1] != DEFAULT:
        condition &= limit_use.c.subject == subject[1]
    counters = locked(tx, limit_use, condition)
    found = in_force(tx, [(row.subject_kind, row.subject) for row in counters])
    values = {limit.subject: limit.value for limit in found if limit.kind == kind}
    for row in counters:
        value = values.get((row.subject_kind, row.subject))
        maximum = None if value is None else max(value, row.used)
        if maximum != row.maximum:
            where = _is(limit_use, (row.subject_kind, row.subject), kind)
            tx.connection.execute(limit_use.update().where(where).values(maximum=maximum))


Counters = Mapping[tuple[str, str, str], Any]


def ask_counters(tx: Transaction, subjects: Sequence[Subject]) -> Answer:
    """What `lock_counters` begins with."""
    return tx.ask(_COUNTERS, subjects=subjects)


def lock_counters(
    tx: Transaction, subjects: Sequence[Subject], asked: Answer | None = None
) -> Counters:
    """The subjects' counters, locked in order; those that do not exist yet are made."""
    rows = (asked or ask_counters(tx, subjects)).rows()
    if len(rows) < len(subjects) * len(COUNTED):
        _one_at_a_time(tx)
        found = {(limit.subject, limit.kind): limit.value for limit in in_force(tx, subjects)}
        insert_new(
            tx,
            limit_use,
            [
                {
                    "subject_kind": subject[0],
                    "subject": subject[1],
                    "kind": kind,
                    "used": 0,
                    "maximum": found.get((subject, kind)),
                }
                for subject in subjects
                for kind in COUNTED
            ],
        )
        rows = tx.rows(_COUNTERS, subjects=subjects)
    return {(row.subject_kind, row.subject, row.kind): row for row in rows}


_OF_SUBJECTS = any_of("subjects", limit_use.c.subject_kind, limit_use.c.subject)
_COUNTERS = Statement(locking(limit_use, _OF_SUBJECTS), "subjects")


def refusal(counters: Counters, more: Use) -> LimitReached | None:
    """Why so much more may not be used; None where it may."""
    for (subject_kind, subject, kind), row in counters.items():
        wanted = more.of(kind)
        if row.maximum is not None and wanted > 0 and row.used + wanted > row.maximum:
            what = {"gpus": "GPUs at once", "bytes": "memory at once", "sessions": "sessions"}[kind]
            say = format_mib if kind == "bytes" else str
            return LimitReached(
                f"the limit on {what} of {subject_kind} {subject} is {say(row.maximum)}:"
                f" {say(row.used)} are in use and {say(wanted)} are asked for",
                "end a session (outboard sessions), ask for less, or ask the administrator to"
                f" raise it: outboard limits set {subject_kind} {subject} {kind} N",
            )
    return None


def count(tx: Transaction, counters: Counters, more: Use) -> None:
    """Add to locked counters, or take away; a maximum that hung above its limit comes down."""
    subjects = sorted({(subject_kind, subject) for subject_kind, subject, _ in counters})
    overhanging = any(
        row.maximum is not None and row.used == row.maximum and more.of(kind) < 0
        for (_, _, kind), row in counters.items()
    )
    if not overhanging:
        amounts = {f"more_{kind}": more.of(kind) for kind in COUNTED}
        tx.later(_COUNT, {"subjects": subjects, **amounts})
        return
    limit = {(found.subject, found.kind): found.value for found in in_force(tx, subjects)}
    changed = []
    for (subject_kind, subject, kind), row in counters.items():
        used, maximum = row.used + more.of(kind), row.maximum
        if maximum is not None:
            maximum = max(limit.get(((subject_kind, subject), kind)) or 0, used)
        if more.of(kind):
            changed.append(
                {
                    "of_subject_kind": subject_kind,
                    "of_subject": subject,
                    "of_kind": kind,
                    "new_used": used,
                    "new_maximum": maximum,
                }
            )
    if changed:
        tx.connection.execute(_BRING_DOWN, changed)


_COUNT = Statement(
    limit_use.update()
    .where(_OF_SUBJECTS)
    .values(
        used=limit_use.c.used
        + sa.case(
            *(
                (limit_use.c.kind == kind, sa.bindparam(f"more_{kind}", type_=sa.BigInteger))
                for kind in COUNTED
            ),
            else_=0,
        )
    ),
    "subjects",
)
_BRING_DOWN = (
    limit_use.update()
    .where(
        limit_use.c.subject_kind == sa.bindparam("of_subject_kind"),
        limit_use.c.subject == sa.bindparam("of_subject"),
        limit_use.c.kind == sa.bindparam("of_kind"),
    )
    .values(used=sa.bindparam("new_used"), maximum=sa.bindparam("new_maximum"))
)


def _is(table: sa.Table, subject: Subject, kind: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        table.c.subject_kind == subject[0], table.c.subject == subject[1], table.c.kind == kind
    )
