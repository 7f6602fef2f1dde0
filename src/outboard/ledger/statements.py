"""Statements that every request runs, compiled once and given to the driver as they are.

SPDX-License-Identifier: Apache-2.0

SQLAlchemy writes them, for either database, and stays the way to run all others. What it does for
each execution (its cache's keys, contexts, results) costs several times what SQLite needs to answer
one of these, and a grant and its release are some forty.

Only for columns and parameters that a driver takes and gives as they are: text, whole numbers,
bytes; a flag comes back as whatever is true or false.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

Parameters = Mapping[str, Any]


class Statement:
    """One statement with its parameters by name; one named in `lists` is a list of keys."""

    def __init__(
        self, construct: sa.Executable, *lists: str, columns: Sequence[str] | None = None
    ) -> None:
        """`columns` are those of an INSERT."""
        self._construct: Any = construct
        self._lists = lists
        self._columns = columns
        self._texts: dict[tuple[str, tuple[int, ...]], _Text] = {}
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
        amounts = tuple(len(parameters[name]) for name in self._lists)
        text = self._texts.get((connection.dialect.name, amounts))
        if text is None:
            text = self._compile(connection.dialect, amounts)
            self._texts[connection.dialect.name, amounts] = text
        return _execute(connection, text.sql, text.values(parameters, self._lists))

    def _compile(self, dialect: sa.Dialect, amounts: Sequence[int]) -> _Text:
        compiled = self._construct.compile(dialect=dialect, column_keys=self._columns)
        fixed = {name: one for name, one in compiled.params.items() if name not in self._lists}
        if not self._lists:
            return _Text(str(compiled), compiled.positiontup, fixed)
        samples = {}
        for name, amount in zip(self._lists, amounts, strict=True):
            width = len(getattr(compiled.binds[name].type, "types", ()))
            samples[name] = [("",) * width if width else ""] * amount
        state = compiled.construct_expanded_state({**compiled.params, **samples})
        return _Text(state.statement, state.positiontup, fixed)


class _Text:
    """A statement for one database and one length of each list."""

    def __init__(self, sql: str, order: Sequence[str] | None, fixed: Parameters) -> None:
        self.sql = sql
        self._order = order
        self._fixed = fixed

    def values(self, parameters: Parameters, lists: Sequence[str]) -> Any:
        """The parameters as the driver takes them: by name, or in their order."""
        named = {**self._fixed, **parameters}
        for name in lists:
            for row, key in enumerate(named.pop(name), 1):
                if isinstance(key, tuple):
                    for column, value in enumerate(key, 1):
                        named[f"{name}_{row}_{column}"] = value
                else:
                    named[f"{name}_{row}"] = key
        return named if self._order is None else [named[name] for name in self._order]


def _execute(connection: sa.Connection, sql: str, values: Any) -> Any:
    """A cursor that has run it; who listens to SQLAlchemy's statements hears of this one, and what
    fails is raised as SQLAlchemy raises it."""
    cursor = connection.connection.cursor()
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
