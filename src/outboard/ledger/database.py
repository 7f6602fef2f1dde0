"""The ledger's database: one writer at a time, and what waits for the turn is committed together.

SPDX-License-Identifier: Apache-2.0

Every change is all or nothing, those that go together too: each is undone alone. On SQLite a
transaction begins with BEGIN IMMEDIATE (one that starts by reading cannot wait for another writer),
and a lock file keeps a second controller out. On PostgreSQL it is READ COMMITTED and begins with
the writer's lock, which all controllers share: rows are locked as well, and a transaction that was
chosen to end a deadlock, with something that is no controller, is run again.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

from outboard.errors import DatabaseUnavailable, LedgerLocked
from outboard.ledger import versions
from outboard.ledger.statements import Statement, pipeline, run, settle
from outboard.ledger.transaction import News, Transaction

log = logging.getLogger("outboard.ledger")

Result = TypeVar("Result")

_ATTEMPTS = 10
_FIRST_PAUSE_S = 0.002
_MOST_TOGETHER = 64  # bounds how long the first waits for the last
_FRESH_S = 1.0
_STATEMENT_TIMEOUT_S = 10  # also bounds how long a hole in the ids of `changes` may last
# A controller that stopped inside of a transaction keeps others from writing so long; one that
# only reads keeps nobody.
_STALLED_WRITER_S, _STALLED_READER_S = 5.0, 60.0
_RETRIED = {"40001", "40P01", "55P03"}  # serialisation failure, deadlock, lock not available
_WRITER_LOCK = 0x6F75747772697465  # "outwrite"


class Clock(Protocol):
    """The time that leases are judged by."""

    def __call__(self, connection: sa.Connection) -> int:
        """Microseconds since 1970, UTC."""


def database_clock(connection: sa.Connection) -> int:
    """The database's own time: the same for every controller. SQLite's is this process's."""
    if connection.dialect.name != "postgresql":
        return time.time_ns() // 1000
    return int(_NOW.ask(connection, {}).one().now_us)


_NOW_US = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us"
_NOW = Statement(sa.text(f"SELECT {_NOW_US}"))


Work = Callable[[Transaction], Result]


class _Spoilt(Exception):
    """What the ledger refused cannot be undone alone: each has to go by itself."""


class Outcome(Generic[Result]):
    """What became of some work: its value, or its error."""

    def __init__(self, work: Work[Result]) -> None:
        self.work = work
        self.over = False
        self.value: Result
        self.error: BaseException | None = None

    def result(self) -> Result:
        if self.error is not None:
            raise self.error
        return self.value


class Database:
    """Opens the ledger and runs transactions on it. Safe to use from several threads."""

    def __init__(self, url: str, clock: Clock = database_clock, pool_size: int = 8) -> None:
        """Open `sqlite:////path`, `sqlite://` (in memory) or `postgresql://…`, newest schema.

        Raises `LedgerLocked` if another controller has the SQLite file, `DatabaseUnavailable` if
        the database does not answer.
        """
        parsed = sa.make_url(url)
        self.sqlite = parsed.get_backend_name() == "sqlite"
        self._clock = clock
        self._writer = threading.Lock()
        self._queue: deque[Outcome[Any]] = deque()
        self._lock_descriptor: int | None = None
        if self.sqlite:
            if parsed.database:
                self._lock_descriptor = lock_file(parsed.database)
            self.engine = _sqlite_engine(parsed, pool_size)
        else:
            self.engine = _postgresql_engine(parsed, pool_size)
        try:
            with self._explained(), self.engine.connect() as connection:
                _begin_writing(connection)
                settle(connection)
                versions.ensure_newest(connection)
                connection.commit()
        except BaseException:
            self.close()
            raise

    def write(self, work: Work[Result]) -> Result:
        """Run `work` in one transaction that commits if it returns, and runs again after a
        deadlock; so it changes nothing but the database. Raises `DatabaseUnavailable`."""
        result: Result = self.write_all([work])[0].result()
        return result

    def read(self, work: Work[Result]) -> Result:
        """Run `work` on one snapshot of the ledger; nothing that it does is kept."""
        with self._reading() as connection:
            return work(Transaction(connection, self._clock))

    def write_all(self, works: Sequence[Work[Any]]) -> list[Outcome[Any]]:
        """Run several changes: those that succeed are committed together, a failed one is undone
        alone; for each what `write` would return or raise."""
        outcomes = [Outcome(work) for work in works]
        self._queue.extend(outcomes)
        with self._writer:
            # Who gets the turn writes what others have queued meanwhile, too.
            while not all(one.over for one in outcomes):
                self._write_queued()
        return [self._explained_outcome(one) for one in outcomes]

    def read_all(self, works: Sequence[Work[Any]]) -> list[Outcome[Any]]:
        """Run several reads on one snapshot; for each what `read` would return or raise."""
        outcomes = [Outcome(work) for work in works]

        try:
            with self._reading() as connection:
                for one in outcomes:
                    try:
                        one.value = one.work(Transaction(connection, self._clock))
                    except DBAPIError:
                        raise  # the snapshot is gone
                    except Exception as error:
                        one.error = error
        except Exception as error:
            for one in outcomes:
                one.error = one.error or error
        return outcomes

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """A connection with a snapshot."""
        with self._explained(), self.engine.connect() as connection:
            connection.begin()
            if not self.sqlite:
                pipeline(connection).begin(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ")
            yield connection

    def close(self) -> None:
        """Close every connection, then let another controller have the file."""
        if hasattr(self, "engine"):
            self.engine.dispose()
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def _write_queued(self) -> None:
        """Everything that is queued, in one commit; what fails by itself undoes itself alone."""
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), _MOST_TOGETHER))]
        try:
            try:
                self._write_together(batch)
            except _Spoilt:
                for item in batch:
                    self._write_alone(item)
        except BaseException as error:
            # The transaction is gone, and with it all that was done in it.
            for item in batch:
                item.error = item.error or error
        finally:
            for item in batch:
                item.over = True

    def _write_alone(self, item: Outcome[Any]) -> None:
        try:
            self._write_together([item])
        except Exception as error:
            item.error = error

    def _write_together(self, batch: Sequence[Outcome[Any]]) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                with self.engine.connect() as connection:
                    clock = _begin_writing(connection)
                    if self._clock is not database_clock:
                        clock = self._clock
                    news = News()
                    for item in batch:
                        item.error = None
                        self._write_one(connection, item, clock, news, alone=len(batch) == 1)
                    if any(item.error is None for item in batch):
                        news.write(connection)
                        self._commit(connection)
                return
            except IntegrityError as error:
                if len(batch) == 1:
                    raise
                raise _Spoilt from error  # of a change that nobody has waited for
            except OperationalError as error:
                if getattr(error.orig, "sqlstate", None) not in _RETRIED:
                    raise
                if attempt == _ATTEMPTS - 1:
                    raise DatabaseUnavailable(
                        f"the ledger is too busy: {_reason(error)}", "try again in a moment"
                    ) from error
                time.sleep(random.uniform(0.5, 1.5) * _FIRST_PAUSE_S * 2**attempt)

    def _write_one(
        self,
        connection: sa.Connection,
        item: Outcome[Any],
        clock: Clock,
        news: News,
        *,
        alone: bool,
    ) -> None:
        tx = Transaction(connection, clock, with_others=not alone)
        try:
            item.value = item.work(tx)
            tx.flush()
            news.add(tx)
        except Exception as error:
            if alone or isinstance(error, OperationalError):
                raise  # the whole transaction may be undone: a full disk, a deadlock
            if (isinstance(error, DBAPIError) and not tx.saved) or not tx.undo():
                raise _Spoilt from error
            item.error = error

    def _commit(self, connection: sa.Connection) -> None:
        if not self.sqlite:
            run(connection, "COMMIT", ())
            settle(connection)
        connection.commit()

    def _explained_outcome(self, outcome: Outcome[Any]) -> Outcome[Any]:
        try:
            with self._explained():
                outcome.result()
        except Exception as error:
            outcome.error = error
        return outcome

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn a database that cannot be used into `DatabaseUnavailable`."""
        try:
            yield
        except OperationalError as error:
            raise _unavailable(error) from error
        except DBAPIError as error:
            if error.connection_invalidated or isinstance(error, sa.exc.InterfaceError):
                raise _unavailable(error) from error
            raise
        except sa.exc.TimeoutError as error:
            raise _unavailable(error) from error


def _begin_writing(connection: sa.Connection) -> Clock:
    """This is the writer from here on; the clock tells PostgreSQL's time then, read after the wait
    for it.

    Without the writer's lock two controllers whose transactions change the rows of many requests
    would lock each other, and for one request at a time there are too many round trips.
    """
    if connection.dialect.name == "sqlite":
        connection.execution_options(begin="IMMEDIATE")
        connection.begin()
        return database_clock
    connection.begin()
    pipeline(connection).begin(connection, "BEGIN ISOLATION LEVEL READ COMMITTED")
    begun = _LOCK.ask(connection, {"stalled": f"{_STALLED_WRITER_S}s"})
    return lambda _connection: int(begun.one().now_us)


_STALLED = "idle_in_transaction_session_timeout"
_LOCK = Statement(
    sa.text(
        f"SELECT {_NOW_US} FROM (SELECT pg_advisory_xact_lock({_WRITER_LOCK}),"
        f" set_config('{_STALLED}', :stalled, true) OFFSET 0) AS locked"
    )
)


def _sqlite_engine(url: sa.URL, pool_size: int) -> sa.Engine:
    if url.database:
        engine = sa.create_engine(url, pool_size=pool_size, connect_args={"timeout": 10})
    else:
        engine = sa.create_engine(
            url, poolclass=sa.pool.StaticPool, connect_args={"check_same_thread": False}
        )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        how = connection.get_execution_options().get("begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {how}")

    return engine


def _postgresql_engine(url: sa.URL, pool_size: int) -> sa.Engine:
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        pool_use_lifo=True,
        pool_timeout=_STATEMENT_TIMEOUT_S,
        isolation_level="READ COMMITTED",
        connect_args={"connect_timeout": 5},
    )

    from psycopg.types.numeric import Int8Dumper

    from outboard.ledger.pipeline import Pipeline

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: sa.engine.interfaces.DBAPIConnection, record: Any) -> None:
        cursor = connection.cursor()
        # Statements that are prepared are prepared by the pipeline: after a rollback psycopg would
        # drop all that the connection has.
        driver: Any = record.driver_connection
        driver.adapters.register_dumper(int, Int8Dumper)
        driver.prepare_threshold = None
        cursor.execute(f"SET statement_timeout = '{_STATEMENT_TIMEOUT_S}s'")
        # What is prepared while a table is small is kept when it has grown; see `Transaction`.
        cursor.execute("SET enable_seqscan = off")
        cursor.execute("SET jit = off")
        cursor.execute(f"SET {_STALLED} = '{_STALLED_READER_S}s'")
        cursor.close()
        connection.commit()
        record.info["pipeline"] = Pipeline(driver)

    # Instead of the pool's own ping, which is a round trip for every transaction.
    @sa.event.listens_for(engine, "checkin")
    def note(_connection: object, record: sa.pool.ConnectionPoolEntry) -> None:
        record.info["used_s"] = time.monotonic()

    @sa.event.listens_for(engine, "checkout")
    def ping(
        connection: sa.engine.interfaces.DBAPIConnection,
        record: sa.pool.ConnectionPoolEntry,
        _proxy: object,
    ) -> None:
        if time.monotonic() - record.info.get("used_s", math.inf) > _FRESH_S:
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as error:
                raise sa.exc.DisconnectionError from error

    return engine


def lock_file(path: str) -> int:
    """The lock that makes this the file's only controller, held until `close`."""
    name = f"{path}.lock"
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise DatabaseUnavailable(
            f"the ledger {path} cannot be opened: {error.strerror}",
            "name a folder that the controller may write in",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LedgerLocked(
            f"another controller has the ledger {path}",
            "end that one first; several controllers at once need PostgreSQL",
        ) from None
    return descriptor


def _unavailable(error: SQLAlchemyError) -> DatabaseUnavailable:
    log.error("the ledger's database cannot be used: %s", _reason(error))
    return DatabaseUnavailable(
        f"the ledger's database cannot be used: {_reason(error)}",
        "running programs go on; look at the database and its disk, then try again",
    )


def _reason(error: SQLAlchemyError) -> str:
    """The driver's words without SQLAlchemy's, in one line."""
    original = getattr(error, "orig", None) or error
    return " ".join(str(original).split())[:300]
