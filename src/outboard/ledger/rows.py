"""Statements that the two databases write differently, and locks in the order of keys.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from outboard.ledger.transaction import Transaction

Row = dict[str, object]


def insert_new(tx: Transaction, table: sa.Table, rows: Sequence[Row]) -> int:
    """Insert the rows whose key is not there yet; returns how many that were, waiting for others
    that insert the same key."""
    if not rows:
        return 0
    if tx.connection.dialect.name == "postgresql":
        statement = postgresql.insert(table).values(rows).on_conflict_do_nothing()
        return tx.connection.execute(statement).rowcount
    return tx.connection.execute(
        sqlite.insert(table).values(rows).on_conflict_do_nothing()
    ).rowcount


def locked(
    tx: Transaction, table: sa.Table, condition: sa.ColumnElement[bool]
) -> Sequence[sa.Row[tuple[object, ...]]]:
    """The rows, locked against other transactions, in the order of their keys.

    The lock lets others insert rows that refer to these. SQLite's one writer needs none.
    """
    statement = sa.select(table).where(condition).order_by(*table.primary_key.columns)
    return tx.connection.execute(statement.with_for_update(key_share=True)).all()


def pairs(
    first: sa.Column[str], second: sa.Column[int], keys: Sequence[tuple[str, int]]
) -> sa.ColumnElement[bool]:
    """That a row's two columns are one of these keys."""
    return sa.tuple_(first, second).in_(sorted(keys))
