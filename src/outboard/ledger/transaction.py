"""One transaction on the ledger: its connection, its time, what it will have changed.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from outboard.ledger.schema import audit, changes
from outboard.ledger.statements import Statement


class Transaction:
    """What the ledger's operations work on. Changes and audit lines are written at its end."""

    def __init__(self, connection: sa.Connection, clock: Callable[[sa.Connection], int]) -> None:
        self.connection = connection
        self._clock = clock
        self._now_us: int | None = None
        self._changes: dict[tuple[str, str], dict[str, object]] = {}
        self._audit: list[dict[str, object]] = []

    @property
    def now_us(self) -> int:
        """The database's time when it was first asked for: the time of everything done here.

        What must be judged after a lock was waited for asks for it first after that lock.
        """
        if self._now_us is None:
            self._now_us = self._clock(self.connection)
        return self._now_us

    def rows(self, statement: Statement, **parameters: Any) -> list[Any]:
        """What a prepared statement finds."""
        return statement.rows(self.connection, parameters)

    def one(self, statement: Statement, **parameters: Any) -> Any:
        """The only row that it finds, or None."""
        found = statement.rows(self.connection, parameters)
        return found[0] if found else None

    def change(self, statement: Statement, **parameters: Any) -> int:
        """How many rows a prepared statement changed."""
        return statement.change(self.connection, parameters)

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
        """Write what `changed` and `audit` collected; the transaction's owner calls this once."""
        if self._audit:
            _AUDIT.change(self.connection, *self._audit)
        if self._changes:
            _CHANGES.change(self.connection, *self._changes.values())


_AUDIT = Statement(
    audit.insert().inline(),
    columns=("actor", "action", "subject", "origin", "detail", "at_us"),
)
_CHANGES = Statement(changes.insert().inline(), columns=("kind", "subject", "at_us"))
