"""The feed of changes: what to read again, since the last time.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from outboard.ledger.schema import changes
from outboard.ledger.statements import Statement
from outboard.ledger.transaction import Transaction

_LONGEST_HOLE_US = 30_000_000  # three times the longest transaction
_MOST_AT_ONCE = 5000


@dataclass(frozen=True, slots=True)
class Change:
    """A thing of the ledger (`node`, `device`, `request`, `session`, …) that was written."""

    id: int
    at_us: int
    kind: str
    subject: str


class ChangeReader:
    """Reads every change once, beginning with what comes after it was made.

    PostgreSQL gives a row its number before it commits it, so a lower number may appear after a
    higher one. The reader keeps the numbers that it has not seen and asks for them again, until
    no transaction can be alive any more that could still write them.
    """

    def __init__(self, after: int = 0) -> None:
        self._highest = after
        self._missing: dict[int, int] = {}

    @classmethod
    def from_now(cls, tx: Transaction) -> ChangeReader:
        """A reader of what comes after this transaction's snapshot."""
        newest = int(tx.connection.scalar(sa.select(sa.func.max(changes.c.id))) or 0)
        reader = cls(newest)
        # Numbers that were given out before the snapshot but are not in it yet.
        recent = changes.c.at_us > tx.now_us - _LONGEST_HOLE_US
        statement = sa.select(changes.c.id).where(recent).order_by(changes.c.id)
        ids = list(tx.connection.execute(statement).scalars())
        if ids:
            holes = set(range(ids[0], newest)) - set(ids)
            reader._missing = dict.fromkeys(holes, tx.now_us)
        return reader

    def read(self, tx: Transaction) -> list[Change]:
        """What was committed since the last call, at most some thousands at once."""
        rows = tx.rows(_AFTER, highest=self._highest, most=_MOST_AT_ONCE)
        if self._missing:
            late = sa.select(changes).where(changes.c.id.in_(sorted(self._missing)))
            rows = [*tx.connection.execute(late.order_by(changes.c.id)), *rows]
        highest = self._highest
        for row in rows:
            if row.id > self._highest:
                for hole in range(self._highest + 1, row.id):
                    self._missing[hole] = tx.now_us
                self._highest = row.id
            else:
                self._missing.pop(row.id, None)
        if self._missing and self._highest == highest:
            oldest = tx.now_us - _LONGEST_HOLE_US
            self._missing = {hole: at for hole, at in self._missing.items() if at > oldest}
        return [Change(row.id, row.at_us, row.kind, row.subject) for row in rows]


_AFTER = Statement(
    sa.select(changes)
    .where(changes.c.id > sa.bindparam("highest"))
    .order_by(changes.c.id)
    .limit(sa.bindparam("most"))
)


def changes_after(tx: Transaction, after: int, most: int = 500) -> list[Change]:
    """What a client that was away has missed; it may see some of it twice."""
    statement = sa.select(changes).where(changes.c.id > after).order_by(changes.c.id).limit(most)
    rows = tx.connection.execute(statement)
    return [Change(row.id, row.at_us, row.kind, row.subject) for row in rows]


def forget_changes(tx: Transaction, older_than_us: int, most: int = 1000) -> int:
    """Delete some of what no reader can be behind by any more, the oldest first; how many rows."""
    oldest = sa.select(changes.c.id, changes.c.at_us).order_by(changes.c.id).limit(most).subquery()
    last = sa.select(sa.func.max(oldest.c.id)).where(oldest.c.at_us < tx.now_us - older_than_us)
    return tx.connection.execute(
        changes.delete().where(changes.c.id <= last.scalar_subquery())
    ).rowcount
