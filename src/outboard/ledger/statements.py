"""Statements that every request runs, compiled once and given to the driver as they are.

SPDX-License-Identifier: Apache-2.0

SQLAlchemy writes them, for either database, and stays the way to run all others. What it does for
each execution (its cache's keys, contexts, results) costs several times what SQLite needs to answer
one of these, and a grant and its release are some forty.

Only for columns and parameters that a driver takes and gives as they are: text, whole numbers,
bytes; a flag comes back as whatever is true or false, a document as its text or as what it says.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

import sqlalchemy as sa
from sqlalchemy.sql import visitors

if TYPE_CHECKING:
    from outboard.ledger.pipeline import Pipeline

Parameters = Mapping[str, Any]

_PLACE = re.compile(r"%\((\w+)\)s|%%")
_PARAMETER = re.compile(r"\$(\d+)")


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
        self._lists = lists
        self._columns = columns
        self._texts: dict[tuple[str, tuple[int, ...]], Text] = {}
        self._make: Callable[[Sequence[Any]], Any] | None = None

    def ask(self, connection: sa.Connection, parameters: Parameters) -> Answer:
        """Run it; on PostgreSQL not before some answer is looked at."""
        text = self.text(connection.dialect, parameters)
        return Answer(self, run(connection, text.sql, text.values(parameters, self._lists)))

    def rows(self, connection: sa.Connection, parameters: Parameters) -> list[Any]:
        """Run it; returns its rows, whose columns are attributes."""
        return self.ask(connection, parameters).rows()

    def change(self, connection: sa.Connection, *many: Parameters) -> int:
        """Run it for each of these parameters; returns how many rows it has changed."""
        answers = [self.ask(connection, parameters) for parameters in many]
        return sum(answer.changed() for answer in answers)

    def insert(self, connection: sa.Connection, rows: Sequence[Parameters]) -> None:
        """Insert so many rows with few statements, of a few lengths."""
        done = 0
        while done < len(rows):
            amount = min(_MOST_ROWS, 1 << (len(rows) - done).bit_length() - 1)
            text = self.text(connection.dialect, {})
            values = [one for row in rows[done : done + amount] for one in text.values(row, ())]
            run(connection, text.of_rows(amount), values)
            done += amount

    def make(self, reply: Reply) -> Callable[[Sequence[Any]], Any]:
        """What makes one of its rows of the values."""
        if self._make is None:
            # The type is made at run time: its fields are the statement's columns.
            made: Any = namedtuple("Row", reply.columns())  # type: ignore[misc]  # noqa: PYI024
            make: Callable[[Sequence[Any]], Any] = made._make
            self._make = make
        return self._make

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
        self._of_rows: dict[int, str] = {}

    def of_rows(self, amount: int) -> str:
        """An INSERT of one row as one of several."""
        sql = self._of_rows.get(amount)
        if sql is None:
            head, values, row = self.sql.rpartition(" VALUES ")
            shifts = (partial(_shift, number * len(self._order)) for number in range(amount))
            rows = ", ".join(_PARAMETER.sub(shift, row) for shift in shifts)
            sql = self._of_rows[amount] = f"{head}{values}{rows}"
        return sql

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


_MOST_ROWS = 64


def _shift(by: int, found: re.Match[str]) -> str:
    return f"${int(found[1]) + by}"


def _number(found: re.Match[str], numbers: dict[str, int]) -> str:
    if found[1] is None:
        return "%"
    return f"${numbers.setdefault(found[1], len(numbers) + 1)}"


def _tables(construct: Any) -> frozenset[str]:
    """Every table that a statement is about."""
    own = {construct.table} if hasattr(construct, "table") else set()
    parts = {one for one in visitors.iterate(construct) if isinstance(one, sa.Table)}
    return frozenset(one.name for one in own | parts)


class Reply(Protocol):
    """What a driver says of a statement."""

    def columns(self) -> list[str]:
        """The names of its columns."""

    def fetch(self, make: Callable[[Sequence[Any]], Any]) -> list[Any]:
        """Its rows, each made of its values."""

    def changed(self) -> int:
        """How many rows it has changed."""


class Answer:
    """What a statement has found, or done."""

    __slots__ = ("_reply", "_statement")

    def __init__(self, statement: Statement, reply: Reply) -> None:
        self._statement, self._reply = statement, reply

    def rows(self) -> list[Any]:
        """Its rows, whose columns are attributes."""
        return self._reply.fetch(self._statement.make(self._reply))

    def one(self) -> Any:
        """The only row, or None."""
        found = self.rows()
        return found[0] if found else None

    def changed(self) -> int:
        """How many rows it has changed."""
        return self._reply.changed()


class _Done:
    """SQLite's, which is there at once."""

    __slots__ = ("_changed", "_columns", "_rows")

    def __init__(self, cursor: Any) -> None:
        self._columns, self._changed = cursor.description, cursor.rowcount
        self._rows = cursor.fetchall()
        cursor.close()

    def columns(self) -> list[str]:
        return [column[0] for column in self._columns]

    def fetch(self, make: Callable[[Sequence[Any]], Any]) -> list[Any]:
        return list(map(make, self._rows))

    def changed(self) -> int:
        return int(self._changed)


def run(connection: sa.Connection, sql: str, values: Sequence[Any]) -> Reply:
    """Run it; PostgreSQL gets it with those that follow, when a reply is looked at or by `settle`.

    Who listens to SQLAlchemy's statements hears of it.
    """
    for heard in connection.dispatch.before_cursor_execute:
        heard(connection, None, sql, values, None, False)
    if connection.dialect.name == "postgresql":
        return pipeline(connection).send(sql, values)
    cursor: Any = connection.connection.cursor()
    try:
        cursor.execute(sql, values)
    except connection.dialect.loaded_dbapi.Error as error:
        cursor.close()
        raise failure(connection, sql, error) from error
    return _Done(cursor)


def pipeline(connection: sa.Connection) -> Pipeline:
    """What takes statements to PostgreSQL on this connection; `Database` begins and ends it."""
    found: Pipeline = connection.info["pipeline"]
    return found


def settle(connection: sa.Connection) -> None:
    """Wait for everything that was run."""
    if connection.dialect.name == "postgresql":
        pipeline(connection).settle()


def failure(connection: sa.Connection, sql: str, error: Exception) -> sa.exc.DBAPIError:
    """A driver's error as SQLAlchemy says it; a connection that is lost is not used again."""
    dialect = connection.dialect
    driver: Any = connection.connection.driver_connection
    gone = dialect.is_disconnect(cast("Any", error), driver, None)
    if gone:
        connection.invalidate(error)
        connection.engine.dispose()  # the others went with it: each would fail one caller
    made = sa.exc.DBAPIError.instance(
        sql,
        None,
        error,
        dialect.loaded_dbapi.Error,
        connection_invalidated=gone,
        dialect=dialect,
    )
    return cast("sa.exc.DBAPIError", made)
