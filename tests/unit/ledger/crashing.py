"""A ledger whose controller dies at the n-th write, and what may share a commit with an operation.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from outboard.ledger.database import Database
from outboard.ledger.rows import insert, insert_new
from outboard.ledger.schema import controllers
from outboard.ledger.transaction import Transaction

_WRITES = ("INSERT", "UPDATE", "DELETE", "WITH")


class Crashed(BaseException):
    """The controller was killed here. Not an Exception: nothing may catch a kill."""


def _refused(tx: Transaction) -> None:
    insert_new(tx, controllers, [{"name": "refused", "joined_us": 0, "seen_us": 0}])
    raise KeyError


def _put_off(tx: Transaction) -> None:
    insert(tx, controllers, [{"name": "put off", "joined_us": 0, "seen_us": 0}])
    raise KeyError


def _written(tx: Transaction) -> None:
    insert(tx, controllers, [{"name": "written", "joined_us": 0, "seen_us": 0}])
    tx.connection.execute(sa.select(controllers)).all()
    raise KeyError


def _impossible(tx: Transaction) -> None:
    insert(tx, controllers, [{"name": "twice", "joined_us": 0, "seen_us": 0}] * 2)


# What may be in the same commit as an operation, and leaves nothing: what fails after a write, what
# fails before one, and what the database refuses when the operation has been done.
COMPANIES = ((_refused,), (_put_off,), (_written,), (_impossible,), (_refused, _impossible))


class CrashingDatabase(Database):
    """A database whose controller dies at the n-th write of a transaction.

    Before and after the commit count as writes: after it, all is done and the answer is lost.
    """

    countdown = 0

    def __init__(self, url: str, clock: Callable[[sa.Connection], int]) -> None:
        super().__init__(url, clock, pool_size=2)
        sa.event.listen(self.engine, "before_cursor_execute", self._before)

    def _before(self, _connection: object, _cursor: object, statement: str, *_more: object) -> None:
        if statement.startswith(_WRITES):
            self._step()

    def _step(self) -> None:
        if self.countdown:
            self.countdown -= 1
            if not self.countdown:
                raise Crashed

    def _commit(self, connection: sa.Connection) -> None:
        self._step()
        super()._commit(connection)
        self._step()
