"""What the event loop wants of the ledger at the same time goes there together.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from outboard.controller.turns import Turns
from outboard.ledger import subjects
from outboard.ledger.database import Database
from outboard.ledger.schema import users
from outboard.ledger.transaction import Transaction


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield made
    made.close()


def count(tx: Transaction) -> int:
    return int(tx.connection.scalar(sa.select(sa.func.count()).select_from(users)) or 0)


def test_a_hundred_changes_are_few_commits_and_each_has_its_answer(database: Database) -> None:
    commits: list[int] = []
    sa.event.listen(database.engine, "commit", lambda _connection: commits.append(1))

    def add(number: int, tx: Transaction) -> int:
        subjects.ensure_user(tx, f"user{number}")
        if number % 10 == 0:
            raise KeyError(number)
        return number

    async def work() -> list[int | BaseException]:
        turns = Turns(database)
        works = [turns.write(lambda tx, n=number: add(n, tx)) for number in range(100)]
        found = await asyncio.gather(*works, return_exceptions=True)
        assert await turns.glance(count) == 90
        turns.close()
        return found

    found = asyncio.run(work())
    assert [one for one in found if isinstance(one, int)] == [n for n in range(100) if n % 10]
    assert sum(isinstance(one, KeyError) for one in found) == 10
    assert len(commits) <= 3


def test_a_caller_that_leaves_takes_nobody_along(database: Database) -> None:
    async def work() -> int:
        turns = Turns(database)
        tasks = [
            asyncio.ensure_future(turns.write(lambda tx, n=n: subjects.ensure_user(tx, f"u{n}")))
            for n in range(3)
        ]
        await asyncio.sleep(0)
        tasks[1].cancel()
        assert await asyncio.wait_for(asyncio.gather(tasks[0], tasks[2]), 60) == [True, True]
        seen = await turns.glance(count)
        turns.close()
        return seen

    assert asyncio.run(work()) in (2, 3)  # the one that left may have been on its way


def test_what_was_written_is_seen_at_once(database: Database) -> None:
    async def work() -> None:
        turns = Turns(database)
        for number in range(20):
            await turns.write(lambda tx, n=number: subjects.ensure_user(tx, f"u{n}"))
            assert await turns.glance(count) == number + 1
        turns.close()

    asyncio.run(work())


def test_many_callers_that_leave_keep_nobody_waiting(database: Database) -> None:
    async def work() -> bool:
        turns = Turns(database)
        tasks = [
            asyncio.ensure_future(turns.write(lambda tx, n=n: subjects.ensure_user(tx, f"u{n}")))
            for n in range(100)
        ]
        await asyncio.sleep(0)
        for task in tasks[:99]:
            task.cancel()
        made = await asyncio.wait_for(tasks[99], 60)
        turns.close()
        return made

    assert asyncio.run(work())
