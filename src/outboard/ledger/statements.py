"""Statements that every request runs, compiled once and given to the driver as they are.

SPDX-License-Identifier: Apache-2.0

SQLAlchemy writes them, for either database, and stays the way to run all others. What it does for
each execution (its cache's keys, contexts, results) costs several times what SQLite needs to answer
one of these, and a grant and its release are some forty.

Only for columns and parameters that a driver takes and gives as they are: text, whole numbers,
bytes; a flag comes back as whatever is true or false.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import visitors

Parameters = Mapping[str, Any]

_PLACE = re.compile(r"%\((\w+)\)s|%%")


class Statement:
    """One statement with its parameters by name; one named in `lists` is a list of keys."""

    def __init__(
        self,
        construct: sa.Executable,
        *lists: str,
        columns: Sequence[str] | None = None,
        steady: bool = False,
    ) -> None:
        """`columns` are those of an INSERT. What is `steady` may be read before changes of the same
        transaction are written: no operation that postpones them changes what it reads."""
        self._construct: Any = construct
        self.tables = frozenset() if steady else _tables(construct)
        self.table = str(getattr(construct, "table", ""))
        self.inserts = isinstance(construct, sa.Insert)
        self._lists = lists
        self._columns = columns
        self._texts: dict[tuple[str, tuple[int, ...]], Text] = {}
        self._row: Any = None

    def rows(self, connection: sa.Connection, parameters: Parameters) -> list[Any]:
        """Run it; returns its rows, whose columns are attributes."""
        cursor = self._run(connection, parameters)
        if self._row is None:
            # The type is made at run time: its fields are the statement's columns.
            names = [column[0] for column in cursor.description]
            made: Any = namedtuple("Row", names)  # type: ignore[misc]  # noqa: PYI024
            self._row = made._make
        found = list(map(self._row, cursor.fetchall()))
        cursor.close()
        return found

    def change(self, connection: sa.Connection, *many: Parameters) -> int:
        """Run it for each of these parameters; returns how many rows it has changed."""
        changed = 0
        for parameters in many:
            cursor = self._run(connection, parameters)
            changed += cursor.rowcount
            cursor.close()
        return changed

    def _run(self, connection: sa.Connection, parameters: Parameters) -> Any:
        text = self.text(connection.dialect, parameters)
        return _execute(connection, text.sql, text.values(parameters, self._lists))

    def values(self, dialect: sa.Dialect, parameters: Parameters) -> list[Any]:
        """The parameters in the order in which the text has them."""
        return self.text(dialect, parameters).values(parameters, self._lists)

    def text(self, dialect: sa.Dialect, parameters: Parameters) -> Text:
        """The statement for these lengths of its lists."""
        amounts = tuple(len(parameters[name]) for name in self._lists)
        text = self._texts.get((dialect.name, amounts))
        if text is None:
            text = self._texts[dialect.name, amounts] = self._compile(dialect, amounts)
        return text

    def _compile(self, dialect: sa.Dialect, amounts: Sequence[int]) -> Text:
        compiled = self._construct.compile(dialect=dialect, column_keys=self._columns)
        fixed = {name: one for name, one in compiled.params.items() if name not in self._lists}
        if not self._lists:
            return Text(str(compiled), compiled.positiontup, fixed)
        samples = {}
        for name, amount in zip(self._lists, amounts, strict=True):
            width = len(getattr(compiled.binds[name].type, "types", ()))
            samples[name] = [("",) * width if width else ""] * amount
        state = compiled.construct_expanded_state({**compiled.params, **samples})
        return Text(state.statement, state.positiontup, fixed)


class Text:
    """A statement for one database and one length of each list. PostgreSQL's parameters are
    numbered, so that nobody has to look for their names each time."""

    def __init__(self, sql: str, order: Sequence[str] | None, fixed: Parameters) -> None:
        self._fixed = fixed
        if order is None:
            numbers: dict[str, int] = {}
            sql = _PLACE.sub(lambda found: _number(found, numbers), sql)
            order = list(numbers)
        self.sql, self._order = sql, order

    def values(self, parameters: Parameters, lists: Sequence[str]) -> list[Any]:
        """The parameters in their order."""
        named = {**self._fixed, **parameters}
        for name in lists:
            for row, key in enumerate(named.pop(name), 1):
                if isinstance(key, tuple):
                    for column, value in enumerate(key, 1):
                        named[f"{name}_{row}_{column}"] = value
                else:
                    named[f"{name}_{row}"] = key
        return [named[name] for name in self._order]


def _number(found: re.Match[str], numbers: dict[str, int]) -> str:
    if found[1] is None:
        return "%"
    return f"${numbers.setdefault(found[1], len(numbers) + 1)}"


def _tables(construct: Any) -> frozenset[str]:
    """Every table that a statement is about."""
    own = {construct.table} if hasattr(construct, "table") else set()
    parts = {one for one in visitors.iterate(construct) if isinstance(one, sa.Table)}
    return frozenset(one.name for one in own | parts)


_combined: dict[tuple[str, ...], str] = {}


def change_all(connection: sa.Connection, changes: Iterable[tuple[Statement, Parameters]]) -> None:
    """Run several changes: on PostgreSQL as one statement, which sees nothing of what it does
    itself, so that no two of them may be about the same row."""
    if connection.dialect.name != "postgresql":
        for statement, parameters in changes:
            statement.change(connection, parameters)
        return
    texts, values = [], []
    for statement, parameters in changes:
        texts.append(statement.text(connection.dialect, parameters).sql)
        values += statement.values(connection.dialect, parameters)
    key = tuple(texts)
    sql = _combined.get(key)
    if sql is None:
        sql = _combined[key] = _combine(key)
    _execute(connection, sql, values).close()


def _combine(texts: Sequence[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    parts, before = [], 0
    for number, text in enumerate(texts):
        pieces = re.split(r"\$(\d+)", text)  # what is between, and the numbers
        own = [int(piece) for piece in pieces[1::2]]
        pieces[1::2] = [f"${one + before}" for one in own]
        parts.append(f"w{number} AS ({''.join(pieces)})")
        before += max(own, default=0)
    return f"WITH {', '.join(parts)} SELECT 1"


def _cursor(connection: sa.Connection) -> Any:
    if connection.dialect.name != "postgresql":
        return connection.connection.cursor()
    from psycopg import RawCursor

    driver: Any = connection.connection.driver_connection
    return RawCursor(driver)


def _execute(connection: sa.Connection, sql: str, values: Any) -> Any:
    """A cursor that has run it; who listens to SQLAlchemy's statements hears of this one, and what
    fails is raised as SQLAlchemy raises it."""
    cursor = _cursor(connection)
    for heard in connection.dispatch.before_cursor_execute:
        heard(connection, cursor, sql, values, None, False)
    dialect = connection.dialect
    errors = dialect.loaded_dbapi.Error
    try:
        cursor.execute(sql, values)
    except errors as error:
        gone = dialect.is_disconnect(error, connection.connection.driver_connection, cursor)
        if gone:
            connection.invalidate(error)
        else:
            cursor.close()
        raise sa.exc.DBAPIError.instance(
            sql, None, error, errors, connection_invalidated=gone, dialect=dialect
        ) from error
    return cursor
