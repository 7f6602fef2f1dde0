"""Statements that the two databases write differently, and locks in the order of keys.

SPDX-License-Identifier: Apache-2.0

What runs for every request is made once, a `Statement` beside the function that runs it: putting
one together costs several times what running it costs.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from outboard.ledger.statements import Statement
from outboard.ledger.transaction import Transaction

Row = dict[str, object]


def insert_new(tx: Transaction, table: sa.Table, rows: Sequence[Row]) -> int:
    """Insert the rows whose key is not there yet; returns how many that were, waiting for others
    that insert the same key."""
    if not rows:
        return 0
    statement = _inserting(table, tx.dialect, tuple(rows[0]))
    return tx.change(statement, *(_plain(table, row) for row in rows))


def _plain(table: sa.Table, row: Row) -> Row:
    """A row as a driver takes it."""
    documents = _documents(table)
    return {name: json.dumps(row[name]) if name in documents else row[name] for name in row}


@functools.cache
def _documents(table: sa.Table) -> frozenset[str]:
    return frozenset(one.name for one in table.c if isinstance(one.type, sa.JSON))


@functools.cache
def _inserting(table: sa.Table, dialect: str, columns: tuple[str, ...]) -> Statement:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return Statement(insert(table).on_conflict_do_nothing().inline(), columns=columns)


def locked(
    tx: Transaction, table: sa.Table, condition: sa.ColumnElement[bool]
) -> Sequence[sa.Row[tuple[object, ...]]]:
    """The rows, locked against other transactions, in the order of their keys.

    The lock lets others insert rows that refer to these. SQLite's one writer needs none.
    """
    return tx.connection.execute(_locking(table).where(condition)).all()


def insert(tx: Transaction, table: sa.Table, rows: Sequence[Row]) -> None:
    """Insert rows that have the same columns; their keys are known before."""
    if rows:
        tx.later(_plain_insert(table, tuple(rows[0])), *(_plain(table, row) for row in rows))


@functools.cache
def _plain_insert(table: sa.Table, columns: tuple[str, ...]) -> Statement:
    return Statement(table.insert().inline(), columns=columns)


def any_of(name: str, *columns: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """That a row's columns are one of the keys that the parameter lists."""
    wanted: sa.BindParameter[Any] = sa.bindparam(name, expanding=True)
    return columns[0].in_(wanted) if len(columns) == 1 else sa.tuple_(*columns).in_(wanted)


def portions(names: Collection[str], most: int = 512) -> Iterator[list[str]]:
    """Names in order, in lists of a few lengths: statements are made for each length once."""
    ordered = sorted(names)
    for start in range(0, len(ordered), most):
        part = ordered[start : start + most]
        length = 1 << (len(part) - 1).bit_length()
        yield part + [part[-1]] * (length - len(part))


@functools.cache
def _locking(table: sa.Table) -> sa.Select[tuple[object, ...]]:
    statement = sa.select(table).order_by(*table.primary_key.columns)
    return statement.with_for_update(key_share=True)


def locking(table: sa.Table, condition: sa.ColumnElement[bool]) -> sa.Select[tuple[object, ...]]:
    """The statement of `locked` for a condition with parameters, to be made once."""
    return _locking(table).where(condition)
