"""Statements on their way to PostgreSQL several at a time, with their results in order.

SPDX-License-Identifier: Apache-2.0

psycopg's cursors wait for every statement and cost the client more than PostgreSQL needs to answer
one. Here what was queued goes out in one piece, by libpq's pipeline mode, when the first of its
results is needed, and every statement is prepared. PostgreSQL runs them one after the other, each
seeing what those before it did; behind one that fails it runs none.
"""

from __future__ import annotations

import itertools
import select
from collections.abc import Callable, Sequence
from typing import Any, cast

import sqlalchemy as sa
from psycopg import Connection, Error, OperationalError
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGresult

from outboard.ledger.statements import failure

_MOST_PREPARED = 1000


class Reply:
    """What became of one statement, once it is known."""

    __slots__ = ("_pipeline", "_result", "sql")

    def __init__(self, pipeline: Pipeline, sql: str) -> None:
        self._pipeline, self.sql = pipeline, sql
        self._result: PGresult | None = None

    def settle(self, result: PGresult) -> None:
        self._result = result

    @property
    def result(self) -> PGresult:
        """Waits for it; raises what this or another that was queued failed with."""
        if self._result is None:
            self._pipeline.settle()
        assert self._result is not None
        return self._result

    def columns(self) -> list[str]:
        """The names of its columns."""
        result = self.result
        return [(result.fname(at) or b"").decode() for at in range(result.nfields)]

    def fetch(self, make: Callable[[Sequence[Any]], Any]) -> list[Any]:
        """Its rows."""
        return self._pipeline.load(self.result, make)

    def changed(self) -> int:
        """How many rows it has changed."""
        return self.result.command_tuples or 0


class Pipeline:
    """One connection's. It belongs to one thread at a time."""

    def __init__(self, driver: Connection[Any]) -> None:
        self._connection = driver.pgconn
        self._whose: sa.Connection
        self._encoding = driver.info.encoding
        self._transformer = Transformer(driver)
        self._prepared: dict[str, bytes] = {}
        self._names = itertools.count()
        self._queued: list[tuple[Reply, list[Any]]] = []
        self._readable = select.poll()
        self._readable.register(self._connection.socket, select.POLLIN)
        self._ready = select.poll()
        self._ready.register(self._connection.socket, select.POLLIN | select.POLLOUT)

    def begin(self, connection: sa.Connection, sql: str) -> None:
        """A transaction begins with this; what was queued for another is forgotten."""
        self._whose, self._queued = connection, []
        self.send(sql, ())

    def send(self, sql: str, values: Sequence[Any]) -> Reply:
        """Queue a statement with its parameters, `$1` and so on."""
        try:
            dumped = self._transformer.dump_sequence(values, [PyFormat.TEXT] * len(values))
        except Error as error:
            raise failure(self._whose, sql, error) from error
        reply = Reply(self, sql)
        self._queued.append((reply, list(dumped)))
        return reply

    def load(self, result: PGresult, make: Callable[[Sequence[Any]], Any]) -> list[Any]:
        """A result's rows."""
        self._transformer.set_pgresult(result)
        # What makes rows gets all values of one at once.
        return self._transformer.load_rows(0, result.ntuples, cast("Any", make))

    def settle(self) -> None:
        """Send what is queued and wait for all of it; what fails first is raised as SQLAlchemy
        raises it."""
        queued, self._queued = self._queued, []
        if not queued:
            return
        connection = self._connection
        connection.enter_pipeline_mode()
        try:
            expected = [one for reply, values in queued for one in self._send(reply, values)]
            connection.pipeline_sync()
            results = self._results()
        except OperationalError as error:
            connection.finish()  # nobody knows any more which results are still to come
            raise failure(self._whose, queued[0][0].sql, error) from error
        connection.exit_pipeline_mode()
        self._take(expected, results)

    def _send(self, reply: Reply, values: list[Any]) -> list[Reply | str]:
        """Hand one to libpq; returns what its results will be of: its preparation's, its own."""
        name = self._prepared.get(reply.sql)
        if name is not None:
            self._connection.send_query_prepared(name, values)
            return [reply]
        if len(self._prepared) == _MOST_PREPARED:
            self._connection.send_query_params(reply.sql.encode(), values)
            return [reply]
        name = self._prepared[reply.sql] = b"ob%d" % next(self._names)
        self._connection.send_prepare(name, reply.sql.encode())
        self._connection.send_query_prepared(name, values)
        return [reply.sql, reply]

    def _results(self) -> list[PGresult]:
        """Every result up to the pipeline's end."""
        connection = self._connection
        while connection.flush():
            self._ready.poll()
            connection.consume_input()
        results: list[PGresult] = []
        while True:
            while connection.is_busy():
                self._readable.poll()
                connection.consume_input()
            result = connection.get_result()
            if result is None:
                if connection.status != ConnStatus.OK:
                    raise OperationalError(connection.get_error_message(self._encoding))
            elif result.status == ExecStatus.PIPELINE_SYNC:
                return results
            else:
                results.append(result)

    def _take(self, expected: list[Reply | str], results: list[PGresult]) -> None:
        failed: tuple[str, Error] | None = None
        for one, result in zip(expected, results, strict=True):
            done = result.status in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
            if isinstance(one, Reply):
                one.settle(result)
            elif not done:
                del self._prepared[one]
            if result.status == ExecStatus.FATAL_ERROR and failed is None:
                sql = one.sql if isinstance(one, Reply) else one
                failed = sql, error_from_result(result, self._encoding)
        if failed is not None:
            raise failure(self._whose, *failed) from failed[1]
