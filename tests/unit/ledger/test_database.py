"""The ledger's database: one schema on two servers, one controller per SQLite file, clear failures.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from outboard.errors import ConfigurationError, DatabaseUnavailable, LedgerLocked
from outboard.ledger import versions
from outboard.ledger.database import Database, database_clock
from outboard.ledger.rows import insert_new
from outboard.ledger.schema import audit, changes, controllers, metadata
from outboard.ledger.transaction import Transaction
from tests.unit.conftest import eventually
from tests.unit.ledger.crashing import Crashed, CrashingDatabase
from tests.unit.ledger.postgres import Postgres

NewUrl = Callable[[], str]


def engine_of(url: str) -> sa.Engine:
    return sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))


def constraints(engine: sa.Engine) -> set[tuple[str, str, str]]:
    """Every CHECK by table, name and text, which alembic's comparison leaves out."""
    inspector = sa.inspect(engine)
    return {
        (table, str(check["name"]), check["sqltext"])
        for table in inspector.get_table_names()
        for check in inspector.get_check_constraints(table)
    }


def test_migrations_lead_to_the_schema_that_a_new_ledger_has(new_url: NewUrl) -> None:
    migrated, created = engine_of(new_url()), new_url()
    with migrated.begin() as connection:
        versions.migrate(connection)
        found = compare_metadata(MigrationContext.configure(connection), metadata)
        version = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    assert found == []
    assert version == versions.NEWEST
    Database(created).close()
    new = engine_of(created)
    assert constraints(migrated) == constraints(new)
    migrated.dispose()
    new.dispose()


def test_a_ledger_of_a_newer_release_is_refused(new_url: NewUrl) -> None:
    url = new_url()
    database = Database(url)
    database.write(
        lambda tx: tx.connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    )
    database.close()
    with pytest.raises(ConfigurationError, match="this release does not know"):
        Database(url)


def test_a_second_controller_on_a_sqlite_file_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    first = Database(url)
    with pytest.raises(LedgerLocked, match="another controller has the ledger"):
        Database(url)
    first.close()
    Database(url).close()


@pytest.mark.parametrize("statement", [audit.update().values(actor="x"), audit.delete()])
def test_the_audit_log_keeps_every_row(new_url: NewUrl, statement: sa.Executable) -> None:
    database = Database(new_url())
    database.write(lambda tx: tx.audit("ann", "users.create", "bob"))
    with pytest.raises(sa.exc.DBAPIError, match="append-only"):
        database.write(lambda tx: tx.connection.execute(statement))
    database.close()


def test_what_a_failed_transaction_did_is_undone(new_url: NewUrl) -> None:
    database = Database(new_url())

    def fail(tx: Transaction) -> None:
        tx.connection.execute(controllers.insert().values(name="a", joined_us=1, seen_us=1))
        raise KeyError

    with pytest.raises(KeyError):
        database.write(fail)
    assert database.read(lambda tx: tx.connection.execute(controllers.select()).all()) == []
    database.close()


def test_writers_of_several_threads_take_turns(new_url: NewUrl) -> None:
    database = Database(new_url())
    database.write(
        lambda tx: tx.connection.execute(
            controllers.insert().values(name="a", joined_us=0, seen_us=0)
        )
    )

    def count(tx: Transaction) -> None:
        row = tx.connection.execute(controllers.select().with_for_update()).one()
        tx.connection.execute(controllers.update().values(seen_us=row.seen_us + 1))
        tx.changed("controller", "a")

    threads = [
        threading.Thread(target=lambda: [database.write(count) for _ in range(20)])
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = database.read(
        lambda tx: tx.connection.execute(sa.select(controllers.c.seen_us)).scalar()
    )
    ids = database.read(lambda tx: tx.connection.execute(sa.select(changes.c.id)).scalars().all())
    assert (seen, len(set(ids))) == (100, 100)
    database.close()


def test_transactions_that_lock_each_other_are_run_again(postgres: Postgres) -> None:
    database = Database(postgres.url())
    for name in "ab":
        database.write(
            lambda tx, name=name: tx.connection.execute(  # type: ignore[misc]
                controllers.insert().values(name=name, joined_us=0, seen_us=0)
            )
        )
    meeting = threading.Barrier(2, timeout=30)
    runs: list[str] = []

    def lock(connection: sa.Connection, names: str) -> None:
        runs.append(names)
        for name in names:
            raised = controllers.update().values(seen_us=controllers.c.seen_us + 1)
            connection.execute(raised.where(controllers.c.name == name))
            if name == names[0] and len(runs) <= 2:
                meeting.wait()

    def stranger() -> None:
        """Something that is no controller, and never gives way."""
        with database.engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL deadlock_timeout = '1h'")
            lock(connection, "ba")

    other = threading.Thread(target=stranger)
    other.start()
    outcomes = database.write_all([_add("c"), lambda tx: lock(tx.connection, "ab")])
    other.join()
    assert [one.error for one in outcomes] == [None, None]
    seen = database.read(
        lambda tx: tx.connection.execute(sa.select(controllers.c.seen_us)).scalars()
    )
    assert (len(runs), sorted(seen)) == (3, [0, 2, 2])
    database.close()


def test_one_controller_writes_at_a_time(postgres: Postgres) -> None:
    url = postgres.url()
    here, there = Database(url), Database(url)
    begun, go_on = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> None:
        assert tx.now_us  # the turn begins with the first word to the database
        begun.set()
        assert go_on.wait(30)

    done: list[int] = []
    first = threading.Thread(target=lambda: here.write(slow))
    first.start()
    assert begun.wait(30)
    second = threading.Thread(target=lambda: done.append(there.write(lambda tx: tx.now_us)))
    second.start()
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    while not here.read(lambda tx: tx.connection.scalar(waiting)):
        assert second.is_alive()
    waited_us = there.read(lambda tx: tx.now_us)  # who reads does not wait
    go_on.set()
    for thread in (first, second):
        thread.join()
    assert done[0] > waited_us  # the time is read after the wait
    here.close()
    there.close()


def test_who_stops_while_it_writes_loses_the_turn_and_who_reads_goes_on(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.url()
    here, there = Database(url), Database(url)
    monkeypatch.setattr("outboard.ledger.database._STALLED_WRITER_S", 0.1)
    own_pid = sa.text("SELECT pg_backend_pid()")
    alive = sa.text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")

    def stop(tx: Transaction) -> None:
        pid = tx.connection.scalar(own_pid)
        eventually(
            lambda: not here.read(lambda seen: seen.connection.scalar(alive, {"pid": pid})),
            "the stopped writer's connection is gone",
        )
        tx.connection.scalar(own_pid)

    def read(tx: Transaction) -> None:
        pid = tx.connection.scalar(own_pid)
        with pytest.raises(DatabaseUnavailable):
            there.write(stop)
        assert tx.connection.scalar(own_pid) == pid

    here.read(read)
    here.close()
    there.close()


def test_a_stopped_database_is_said_and_comes_back(postgres: Postgres) -> None:
    database = Database(postgres.url())
    postgres.stop()
    try:
        with pytest.raises(DatabaseUnavailable, match="cannot be used"):
            database.read(lambda tx: tx.now_us)
        with pytest.raises(DatabaseUnavailable):
            database.write(lambda tx: tx.now_us)
    finally:
        postgres.start()
    assert database.read(lambda tx: tx.now_us) > 0
    database.close()


def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/ledger.sqlite")

    def fill(tx: Transaction) -> None:
        tx.connection.exec_driver_sql("PRAGMA max_page_count = 1")
        tx.audit("a", "b", "c" * 1_000_000)

    with pytest.raises(DatabaseUnavailable, match="full"):
        database.write(fill)
    assert database.read(lambda tx: tx.connection.execute(audit.select()).all()) == []
    database.close()


def test_a_folder_that_is_missing_is_said() -> None:
    with pytest.raises(DatabaseUnavailable, match="cannot be opened: No such file"):
        Database("sqlite:////nowhere/ledger.sqlite")


def test_changes_that_wait_together_fail_alone(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/ledger.sqlite")
    begun, go_on = threading.Event(), threading.Event()
    outcomes: dict[int, str] = {}

    def slow(tx: Transaction) -> None:
        begun.set()
        assert go_on.wait(30)
        tx.changed("test", "slow")

    def quick(number: int) -> None:
        def work(tx: Transaction) -> None:
            tx.connection.execute(
                controllers.insert().values(name=str(number), joined_us=0, seen_us=0)
            )
            if number % 2:
                raise KeyError(number)

        try:
            database.write(work)
            outcomes[number] = "kept"
        except KeyError:
            outcomes[number] = "undone"

    threads = [threading.Thread(target=database.write, args=(slow,))]
    threads[0].start()
    assert begun.wait(30)
    for number in range(6):
        threads.append(threading.Thread(target=quick, args=(number,)))
        threads[-1].start()
    while len(database._queue) < 6:
        pass
    commits: list[int] = []
    sa.event.listen(database.engine, "commit", lambda _connection: commits.append(1))
    go_on.set()
    for thread in threads:
        thread.join()
    assert outcomes == {0: "kept", 1: "undone", 2: "kept", 3: "undone", 4: "kept", 5: "undone"}
    names = database.read(
        lambda tx: tx.connection.execute(sa.select(controllers.c.name)).scalars().all()
    )
    assert sorted(names) == ["0", "2", "4"]
    assert len(commits) == 2
    database.close()


def test_rows_that_were_there_before_are_not_counted_as_new(new_url: NewUrl) -> None:
    database = Database(new_url())
    rows = [{"name": name, "joined_us": 0, "seen_us": 0} for name in "abc"]
    assert database.write(lambda tx: insert_new(tx, controllers, rows[:2])) == 2
    assert database.write(lambda tx: insert_new(tx, controllers, rows[:1])) == 0
    assert database.write(lambda tx: insert_new(tx, controllers, rows)) == 1
    database.close()


def _add(name: str) -> Callable[[Transaction], str]:
    def work(tx: Transaction) -> str:
        tx.connection.execute(controllers.insert().values(name=name, joined_us=0, seen_us=0))
        return name

    return work


def _names(database: Database) -> list[str]:
    return sorted(
        database.read(lambda tx: tx.connection.execute(sa.select(controllers.c.name)).scalars())
    )


def test_changes_that_go_together_have_an_outcome_each(new_url: NewUrl) -> None:
    database = Database(new_url())

    def refuse(tx: Transaction) -> None:
        _add("refused")(tx)
        raise KeyError("refused")

    commits: list[int] = []
    sa.event.listen(database.engine, "commit", lambda _connection: commits.append(1))
    outcomes = database.write_all([_add("a"), refuse, _add("b")])
    assert [type(one.error) for one in outcomes] == [type(None), KeyError, type(None)]
    assert (outcomes[0].value, outcomes[2].value, len(commits)) == ("a", "b", 1)
    outcomes = database.write_all([_add("c"), _add("a"), refuse, _add("d")])
    assert [type(one.error) for one in outcomes] == [
        type(None),
        sa.exc.IntegrityError,
        KeyError,
        type(None),
    ]
    assert (outcomes[0].value, outcomes[3].value, len(commits)) == ("c", "d", 2)
    assert _names(database) == ["a", "b", "c", "d"]
    database.close()


def test_a_crash_in_one_of_many_keeps_all_or_promises_none(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    point, kept = 0, set()
    while True:
        point += 1
        database = CrashingDatabase(url, database_clock)
        database.write(lambda tx: tx.connection.execute(controllers.delete()))
        database.countdown = point
        try:
            database.write_all([_add(name) for name in "abc"])
            break  # through: there were no more writes to crash at
        except Crashed:
            database.countdown = 0
            database.close()
        again = Database(url)
        kept.add("".join(_names(again)))
        again.close()
    assert point > 5  # three rows and both sides of the commit
    assert kept == {"", "abc"}  # the latter where it crashed after the commit: the answers are lost
    assert _names(database) == ["a", "b", "c"]
    database.close()


def test_what_is_read_together_fails_alone(new_url: NewUrl) -> None:
    database = Database(new_url())
    database.write(_add("a"))

    def fail(tx: Transaction) -> None:
        raise KeyError

    count = sa.select(sa.func.count()).select_from(controllers)
    good, bad = database.read_all([lambda tx: tx.connection.scalar(count), fail])
    assert (good.value, type(bad.error)) == (1, KeyError)
    database.close()
