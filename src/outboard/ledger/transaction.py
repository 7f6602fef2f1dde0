"""One transaction on the ledger: its connection, its time, what it will have changed.

SPDX-License-Identifier: Apache-2.0

Changes whose outcome nobody needs to know are put off, and written together: at the end, or before
something that may see them is read. PostgreSQL takes them as one statement.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from outboard.ledger.schema import audit, changes
from outboard.ledger.statements import Parameters, Statement, change_all


class Transaction:
    """What the ledger's operations work on. Changes and audit lines are written at its end."""

    def __init__(
        self,
        connection: sa.Connection,
        clock: Callable[[sa.Connection], int],
        *,
        with_others: bool = False,
    ) -> None:
        """Goes `with_others` if it is to be undone alone should it fail."""
        self._connection = connection
        self._clock = clock
        self._saves = with_others
        self.saved = False
        self._wrote = False
        self._later: list[tuple[Statement, Parameters]] = []
        self._written: dict[str, Statement] = {}
        self._now_us: int | None = None
        self._changes: dict[tuple[str, str], dict[str, object]] = {}
        self._audit: list[dict[str, object]] = []

    @property
    def now_us(self) -> int:
        """The database's time when it was first asked for: the time of everything done here.

        What must be judged after a lock was waited for asks for it first after that lock.
        """
        if self._now_us is None:
            self._now_us = self._clock(self._connection)
        return self._now_us

    @property
    def connection(self) -> sa.Connection:
        """For what is no prepared statement; all that was put off is written by now."""
        self._write()
        self._save()
        return self._connection

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._connection.dialect.name

    def rows(self, statement: Statement, **parameters: Any) -> list[Any]:
        """What a prepared statement finds."""
        if not self._written.keys().isdisjoint(statement.tables):
            self._write()
        return statement.rows(self._connection, parameters)

    def one(self, statement: Statement, **parameters: Any) -> Any:
        """The only row that it finds, or None."""
        found = self.rows(statement, **parameters)
        return found[0] if found else None

    def change(self, statement: Statement, *many: Parameters) -> int:
        """How many rows a prepared statement changed, with each of these parameters."""
        return statement.change(self.connection, *many)

    def later(self, statement: Statement, *many: Parameters) -> None:
        """Change what a prepared statement says with each of these parameters, which are about
        rows of their own; before anything is read that may see it."""
        if not many:
            return
        seen = self._written.keys() & statement.tables
        if not all(self._written[table].inserts and statement.inserts for table in seen):
            self._write()
        self._later += [(statement, parameters) for parameters in many]
        self._written[statement.table] = statement

    def changed(self, kind: str, subject: str) -> None:
        """Tell the readers of the change table that this thing is worth reading again."""
        self._changes[kind, subject] = {"kind": kind, "subject": subject, "at_us": self.now_us}

    def audit(
        self, actor: str, action: str, subject: str, origin: str = "", **detail: object
    ) -> None:
        """Write down who did what to what."""
        self._audit.append(
            {
                "actor": actor,
                "action": action,
                "subject": subject,
                "origin": origin,
                "detail": json.dumps(detail),
                "at_us": self.now_us,
            }
        )

    def flush(self) -> None:
        """Write what is still to be written; the transaction's owner calls this once."""
        self._write()
        if self.saved:
            self._connection.exec_driver_sql("RELEASE alone")

    def undo(self) -> bool:
        """Undo what was done in it, and nothing that others did; whether that can be."""
        if self._wrote:
            return False
        if self.saved:
            self._connection.exec_driver_sql("ROLLBACK TO alone")
            self._connection.exec_driver_sql("RELEASE alone")
        return True

    def _write(self) -> None:
        """Write what was put off until now. What fails after it, seldom, cannot be undone alone: a
        savepoint would cost every operation two statements."""
        audited, self._audit = self._audit, []
        changed, self._changes = self._changes, {}
        written = [
            *self._later,
            *((_AUDIT, row) for row in audited),
            *((_CHANGES, row) for row in changed.values()),
        ]
        if written:
            self._wrote = not self.saved
            self._later = []
            self._written.clear()
            change_all(self._connection, written)

    def _save(self) -> None:
        """By hand: SQLAlchemy's nested transactions cost as much as five statements."""
        if self._saves and not self.saved and not self._wrote:
            self._connection.exec_driver_sql("SAVEPOINT alone")
            self.saved = True


_AUDIT = Statement(
    audit.insert().inline(),
    columns=("actor", "action", "subject", "origin", "detail", "at_us"),
)
_CHANGES = Statement(changes.insert().inline(), columns=("kind", "subject", "at_us"))
