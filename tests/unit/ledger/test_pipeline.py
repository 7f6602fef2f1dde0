"""Statements that go to PostgreSQL together fail and are answered as if they went one by one.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from outboard.errors import DatabaseUnavailable
from outboard.ledger import pipeline
from outboard.ledger.database import Database
from outboard.ledger.rows import insert
from outboard.ledger.schema import controllers, users
from outboard.ledger.statements import Statement
from outboard.ledger.transaction import Transaction
from tests.unit.ledger.postgres import Postgres

USERS = Statement(sa.select(users.c.name).order_by(users.c.name))
CONTROLLERS = Statement(sa.select(sa.func.count().label("amount")).select_from(controllers))
BACKEND = Statement(sa.text("SELECT pg_backend_pid() AS pid"))
RAISE = Statement(users.update().values(weight=users.c.weight + 1))
WRONG = Statement(sa.text("SELECT x FROM nothing_of_that_name"))


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    made = Database(postgres.url())
    yield made
    made.close()


def add_user(tx: Transaction, name: str, weight: int = 1) -> None:
    insert(tx, users, [{"name": name, "weight": weight, "created_us": 0}])


def names(database: Database) -> list[str]:
    return database.read(lambda tx: [row.name for row in tx.rows(USERS)])


def test_an_answer_is_of_the_moment_of_its_question(database: Database) -> None:
    def work(tx: Transaction) -> list[int]:
        answers = [tx.ask(USERS)]
        for name in "ab":
            add_user(tx, name)
            answers.append(tx.ask(USERS))
        others = tx.ask(CONTROLLERS)
        return [len(one.rows()) for one in answers] + [others.one().amount]

    assert database.write(work) == [0, 1, 2, 0]


def test_how_plans_are_made_is_said_once_a_transaction(database: Database) -> None:
    said: list[str] = []
    sa.event.listen(
        database.engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, *_: said.append(statement),
    )

    def work(tx: Transaction) -> list[str]:
        tx.change(RAISE)  # what is prepared needs it not
        before = [one for one in said if "seqscan" in one]
        for _ in range(3):
            tx.connection.execute(sa.select(users.c.name))
        return before

    assert database.write(work) == []
    assert len([one for one in said if "seqscan" in one]) == 1


def test_what_nobody_has_waited_for_is_refused_at_the_end(database: Database) -> None:
    with pytest.raises(sa.exc.IntegrityError, match="weight"):
        database.write(lambda tx: add_user(tx, "ann", weight=0))
    database.write(lambda tx: add_user(tx, "ann"))
    assert names(database) == ["ann"]


def test_a_failure_behind_others_undoes_them_and_is_said(database: Database) -> None:
    def work(tx: Transaction) -> None:
        add_user(tx, "ann")
        asked = tx.ask(USERS)
        add_user(tx, "ann")
        tx.ask(USERS)
        asked.rows()

    with pytest.raises(sa.exc.IntegrityError, match="ann"):
        database.write(work)
    assert names(database) == []


def test_what_could_not_be_prepared_is_prepared_again(database: Database) -> None:
    for _ in range(3):
        with pytest.raises(sa.exc.ProgrammingError, match="nothing_of_that_name"):
            database.read(lambda tx: tx.rows(WRONG))
        assert names(database) == []


def test_beyond_so_many_nothing_is_prepared(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_MOST_PREPARED", 3)
    database.write(lambda tx: add_user(tx, "ann"))
    for _ in range(2):
        assert names(database) == ["ann"]
        assert database.read(lambda tx: tx.one(CONTROLLERS)).amount == 0
    prepared = sa.text("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'ob%'")
    assert database.read(lambda tx: tx.connection.scalar(prepared)) == 3


def test_a_text_that_postgresql_cannot_hold_is_refused(database: Database) -> None:
    with pytest.raises(sa.exc.DataError, match="NUL"):
        database.write(lambda tx: add_user(tx, "a\0b"))
    assert names(database) == []


def test_a_connection_that_is_lost_is_an_unusable_database(database: Database) -> None:
    def end(tx: Transaction) -> None:
        victim = tx.one(BACKEND).pid
        stop = sa.text("SELECT pg_terminate_backend(CAST(:victim AS INTEGER))")
        with database.engine.connect() as other:
            other.execute(stop, {"victim": victim})
        while other_has(victim):
            pass
        add_user(tx, "ann")
        tx.rows(USERS)

    def other_has(pid: int) -> bool:
        alive = sa.text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
        with database.engine.connect() as other:
            return bool(other.execute(alive, {"pid": pid}).scalar_one())

    with pytest.raises(DatabaseUnavailable, match="cannot be used"):
        database.write(end)
    assert names(database) == []
    database.write(lambda tx: add_user(tx, "bob"))
    assert names(database) == ["bob"]


def test_what_a_transaction_left_behind_is_not_the_next_ones(database: Database) -> None:
    def leave(tx: Transaction) -> None:
        add_user(tx, "ann")
        tx.ask(USERS)  # queued, with what comes before it, and never looked at
        raise KeyError

    for _ in range(10):  # the pool hands the same connection out again
        with pytest.raises(KeyError):
            database.write(leave)
        assert names(database) == []
