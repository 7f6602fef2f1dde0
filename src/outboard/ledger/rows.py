"""Statements that the two databases write differently, and locks in the order of keys.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import functools
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
    statement = _inserting(table, tx.connection.dialect.name)
    # One by one: not every driver counts what it did with several.
    return sum(tx.connection.execute(statement, row).rowcount for row in rows)


@functools.cache
def _inserting(table: sa.Table, dialect: str) -> sa.Insert:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = insert(table).on_conflict_do_nothing()
    # Nothing is to be returned but how many; an INSERT's count is not kept unless asked for.
    return statement.inline().execution_options(preserve_rowcount=True)


def locked(
    tx: Transaction, table: sa.Table, condition: sa.ColumnElement[bool]
) -> Sequence[sa.Row[tuple[object, ...]]]:
    """The rows, locked against other transactions, in the order of their keys.

    The lock lets others insert rows that refer to these. SQLite's one writer needs none.
    """
    return tx.connection.execute(_locking(table).where(condition)).all()


@functools.cache
def _locking(table: sa.Table) -> sa.Select[tuple[object, ...]]:
    # Made once: putting a table's columns into a statement costs more than running it.
    statement = sa.select(table).order_by(*table.primary_key.columns)
    return statement.with_for_update(key_share=True)


def pairs(
    first: sa.Column[str], second: sa.Column[int], keys: Sequence[tuple[str, int]]
) -> sa.ColumnElement[bool]:
    """That a row's two columns are one of these keys."""
    return sa.tuple_(first, second).in_(sorted(keys))
