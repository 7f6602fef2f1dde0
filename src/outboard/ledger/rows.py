"""Statements that the two databases write differently, and locks in the order of keys.

SPDX-License-Identifier: Apache-2.0

What runs for every request is made once, with `bindparam`s, beside the function that runs it:
putting a statement together costs several times what running it costs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

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


def insert(tx: Transaction, table: sa.Table, rows: Sequence[Row]) -> None:
    """Insert rows that have the same columns; their keys are known before."""
    tx.connection.execute(_plain_insert(table), one_or_many(rows))


def one_or_many(rows: Sequence[Row]) -> Row | Sequence[Row]:
    """The parameters of a statement that is run once for each row: a driver's way to run one
    several times costs more than to run it."""
    return rows[0] if len(rows) == 1 else rows


@functools.cache
def _plain_insert(table: sa.Table) -> sa.Insert:
    return table.insert().inline()


def any_of(name: str, *columns: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """That a row's columns are one of the keys that the parameter lists."""
    wanted: sa.BindParameter[Any] = sa.bindparam(name, expanding=True)
    return columns[0].in_(wanted) if len(columns) == 1 else sa.tuple_(*columns).in_(wanted)


@functools.cache
def _locking(table: sa.Table) -> sa.Select[tuple[object, ...]]:
    statement = sa.select(table).order_by(*table.primary_key.columns)
    return statement.with_for_update(key_share=True)


def locking(table: sa.Table, condition: sa.ColumnElement[bool]) -> sa.Select[tuple[object, ...]]:
    """The statement of `locked` for a condition with parameters, to be made once."""
    return _locking(table).where(condition)
