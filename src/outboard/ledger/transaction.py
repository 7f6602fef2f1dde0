"""One transaction on the ledger: its connection, its time, what it will have changed.

SPDX-License-Identifier: Apache-2.0

Changes whose outcome nobody needs to know are put off, and written together: at the end, or before
something that may see them is read. PostgreSQL is not waited for before somebody has to know.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from outboard.ledger.schema import audit, changes
from outboard.ledger.statements import Answer, Parameters, Statement, run, settle


class News:
    """What transactions that are committed together tell of what they did: nobody reads it before
    they are over, and it is written with few statements."""

    def __init__(self) -> None:
        self.changes: list[Parameters] = []
        self.audit: list[Parameters] = []

    def add(self, tx: Transaction) -> None:
        """What a transaction that has come to its end tells."""
        self.changes += tx.changes.values()
        self.audit += tx.audited

    def write(self, connection: sa.Connection) -> None:
        """Write it, at last."""
        _AUDIT.insert(connection, self.audit)
        _CHANGES.insert(connection, self.changes)


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
        self._scans = False
        self._later: list[tuple[Statement, Parameters]] = []
        self._written: set[str] = set()
        self._now_us: int | None = None
        self.changes: dict[tuple[str, str], Parameters] = {}
        self.audited: list[Parameters] = []

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
        if self.dialect == "postgresql" and not self._scans:
            # What is planned anew each time may read a whole table; what is prepared must not.
            run(self._connection, "SET LOCAL enable_seqscan = on", ())
            self._scans = True
        self._save()
        settle(self._connection)  # SQLAlchemy's statements go past the pipeline
        return self._connection

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._connection.dialect.name

    def ask(self, statement: Statement, **parameters: Any) -> Answer:
        """What a prepared statement finds; what is asked for together goes to PostgreSQL together,
        when the first answer is looked at."""
        if not self._written.isdisjoint(statement.tables):
            self._write()
        return statement.ask(self._connection, parameters)

    def rows(self, statement: Statement, **parameters: Any) -> list[Any]:
        """What a prepared statement finds."""
        return self.ask(statement, **parameters).rows()

    def one(self, statement: Statement, **parameters: Any) -> Any:
        """The only row that it finds, or None."""
        return self.ask(statement, **parameters).one()

    def change(self, statement: Statement, *many: Parameters) -> int:
        """How many rows a prepared statement changed, with each of these parameters."""
        self._write()
        self._save()
        return statement.change(self._connection, *many)

    def later(self, statement: Statement, *many: Parameters) -> None:
        """Change what a prepared statement says with each of these parameters, before anything is
        read that may see it."""
        self._later += [(statement, parameters) for parameters in many]
        self._written.add(statement.table)

    def changed(self, kind: str, subject: str) -> None:
        """Tell the readers of the change table that this thing is worth reading again."""
        self.changes[kind, subject] = {"kind": kind, "subject": subject, "at_us": self.now_us}

    def audit(
        self, actor: str, action: str, subject: str, origin: str = "", **detail: object
    ) -> None:
        """Write down who did what to what."""
        self.audited.append(
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
        """Write what is still to be written, but for its news; its owner calls this once."""
        self._write()
        if self.saved:
            run(self._connection, "RELEASE alone", ())

    def undo(self) -> bool:
        """Undo what was done in it, and nothing that others did; whether that can be."""
        if self._wrote:
            return False
        if self.saved:
            run(self._connection, "ROLLBACK TO alone", ())
            run(self._connection, "RELEASE alone", ())
        return True

    def _write(self) -> None:
        """Write what was put off until now. What fails after it, seldom, cannot be undone alone: a
        savepoint would cost every operation two statements."""
        if not self._later:
            return
        self._wrote = not self.saved
        written, self._later = self._later, []
        self._written.clear()
        for statement, parameters in written:
            statement.ask(self._connection, parameters)

    def _save(self) -> None:
        """By hand: SQLAlchemy's nested transactions cost as much as five statements."""
        if self._saves and not self.saved and not self._wrote:
            run(self._connection, "SAVEPOINT alone", ())
            self.saved = True


_AUDIT = Statement(
    audit.insert().inline(),
    columns=("actor", "action", "subject", "origin", "detail", "at_us"),
)
_CHANGES = Statement(changes.insert().inline(), columns=("kind", "subject", "at_us"))
