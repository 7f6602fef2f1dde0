"""Prepared statements say what SQLAlchemy's own execution says, and fail as it fails.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from outboard.errors import DatabaseUnavailable
from outboard.ledger.database import Database
from outboard.ledger.rows import any_of, insert
from outboard.ledger.schema import audit, limits, users
from outboard.ledger.statements import Statement
from outboard.ledger.transaction import Transaction

KEYS = [("user", "ann"), ("user", "bob"), ("group", "all")]
SELECT = sa.select(limits).where(any_of("keys", limits.c.subject_kind, limits.c.subject))


@pytest.fixture
def database(new_url: Callable[[], str]) -> Iterator[Database]:
    made = Database(new_url())
    made.write(
        lambda tx: insert(
            tx,
            limits,
            [
                {"subject_kind": kind, "subject": name, "kind": "gpus", "value": 3, "set_us": 7}
                for kind, name in KEYS
            ],
        )
    )
    yield made
    made.close()


@pytest.mark.parametrize("amount", [1, 2, 3])
def test_rows_by_lists_of_keys_are_sqlalchemys(database: Database, amount: int) -> None:
    prepared, asked = Statement(SELECT, "keys"), KEYS[:amount]

    def both(tx: Transaction) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
        own = [tuple(row) for row in tx.rows(prepared, keys=asked)]
        other = tx.connection.execute(SELECT, {"keys": asked})
        return sorted(own), sorted(tuple(row) for row in other)

    own, other = database.read(both)
    assert own == other
    assert len(own) == amount


def test_columns_are_attributes_and_changes_are_counted(database: Database) -> None:
    raised = Statement(
        limits.update()
        .where(limits.c.kind == "gpus", limits.c.subject == sa.bindparam("name"))
        .values(value=limits.c.value + sa.bindparam("more", type_=sa.BigInteger))
    )
    assert database.write(lambda tx: tx.change(raised, {"name": "ann", "more": 4})) == 1
    assert database.write(lambda tx: tx.change(raised, {"name": "nobody", "more": 4})) == 0
    prepared = Statement(SELECT, "keys")
    row = database.read(lambda tx: tx.one(prepared, keys=KEYS[:1]))
    assert (row.subject, row.value) == ("ann", 7)


def test_a_constraint_is_said_in_sqlalchemys_words(database: Database) -> None:
    row = {"name": "ann", "weight": 0, "created_us": 0}
    with pytest.raises(sa.exc.IntegrityError, match="weight"):
        database.write(lambda tx: insert(tx, users, [row]))
    assert database.write(lambda tx: tx.now_us) > 0  # the connection is as good as new


def test_a_wrong_statement_is_an_unusable_database(database: Database) -> None:
    wrong = Statement(sa.text("SELECT x FROM nothing_of_that_name"))
    expected = DatabaseUnavailable if database.sqlite else sa.exc.ProgrammingError
    with pytest.raises(expected, match="nothing_of_that_name"):
        database.read(lambda tx: tx.rows(wrong))


def test_who_listens_to_statements_hears_of_them(database: Database) -> None:
    heard: list[str] = []
    sa.event.listen(
        database.engine, "before_cursor_execute", lambda _c, _u, text, *_: heard.append(text)
    )
    database.write(lambda tx: tx.audit("ann", "test", "x", reason="why"))
    assert [text.partition(" ")[0] for text in heard if "audit" in text] == ["INSERT"]
    detail = database.read(lambda tx: tx.connection.scalar(sa.select(audit.c.detail)))
    assert detail == {"reason": "why"}


@pytest.mark.parametrize(("amount", "statements"), [(0, 0), (1, 1), (2, 1), (7, 3), (130, 3)])
def test_many_rows_are_inserted_with_few_statements(
    database: Database, amount: int, statements: int
) -> None:
    heard: list[str] = []

    def work(tx: Transaction) -> None:
        for number in range(amount):
            tx.audit("ann", "test", str(number))

    sa.event.listen(
        database.engine, "before_cursor_execute", lambda _c, _u, text, *_: heard.append(text)
    )
    database.write(work)
    assert len([text for text in heard if "INTO audit" in text]) == statements
    found = sa.select(audit.c.subject).where(audit.c.action == "test").order_by(audit.c.id)
    rows = database.read(lambda tx: tx.connection.execute(found).scalars().all())
    assert rows == [str(number) for number in range(amount)]
