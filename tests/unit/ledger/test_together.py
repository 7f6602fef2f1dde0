"""What is committed together counts as if it came one by one.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from outboard.ledger import allocations, limits, nodes, requests, subjects
from outboard.ledger.database import Database
from outboard.ledger.grants import Granted, Lost
from outboard.ledger.requests import Ask, Terms
from outboard.ledger.rows import insert
from outboard.ledger.schema import controllers, devices, limit_use
from outboard.ledger.schema import requests as requests_table
from outboard.ledger.statements import Statement
from outboard.ledger.transaction import Transaction
from outboard.model.request import GrantedDevice, Request, Share
from tests.unit.ledger.simulation import MIB, node

TERMS = Terms()
AMOUNT = 3 * MIB
CHOSEN = (GrantedDevice("n1", 0, AMOUNT),)
ROW = {"joined_us": 0, "seen_us": 0}


@pytest.fixture
def database(new_url: Callable[[], str]) -> Iterator[Database]:
    made = Database(new_url())

    def fill(tx: Transaction) -> None:
        nodes.register_node(tx, node("n1", [20 * MIB]))
        for user in ("ann", "bob"):
            subjects.ensure_user(tx, user)
        limits.set_limit(tx, ("user", "ann"), "sessions", 4)

    made.write(fill)
    yield made
    made.close()


def asking(number: int, user: str) -> Callable[[Transaction], Granted | Ask | Lost]:
    request = Request(f"{number:032x}", 1, Share(amount_bytes=AMOUNT), None, 1, 1, "p", user=user)
    return lambda tx: requests.submit_for(tx, request, CHOSEN, TERMS)


def held(database: Database) -> tuple[int, int]:
    """Bytes granted of the device, and sessions counted."""

    def read(tx: Transaction) -> tuple[int, int]:
        used = sa.select(sa.func.sum(limit_use.c.used)).where(limit_use.c.kind == "sessions")
        granted = tx.connection.scalar(sa.select(devices.c.granted_bytes))
        return int(granted or 0), int(tx.connection.scalar(used) or 0)

    return database.read(read)


def test_requests_of_one_commit_count_for_each_other(database: Database) -> None:
    works = [asking(number, "ann") for number in range(5)]
    works += [asking(number, "bob") for number in range(5, 9)]
    works.append(asking(0, "ann"))  # said again in the same breath
    found = [one.result() for one in database.write_all(works)]
    # Four by ann's limit, then two until the device is full; the rest waits.
    assert [type(one).__name__ for one in found] == [
        *(["Granted"] * 4 + ["Ask"] + ["Granted"] * 2 + ["Lost"] * 2 + ["Ask"])
    ]
    assert isinstance(found[-1], Ask)
    assert found[-1].state == "granted"
    assert held(database) == (6 * AMOUNT, 6)
    states = database.read(
        lambda tx: tx.connection.execute(sa.select(requests_table.c.state)).scalars().all()
    )
    assert sorted(states) == ["granted"] * 6 + ["waiting"] * 3

    names = [one.allocation for one in found if isinstance(one, Granted)]
    ends = [
        lambda tx, name=name: allocations.begin_end(tx, name, "ann", "released") for name in names
    ]
    releases = [lambda tx, name=name: allocations.release(tx, name, "n1") for name in names]
    again = releases[0]
    done = database.write_all([*ends, *releases, again])
    assert [one.result() for one in done] == [True] * 12 + [False]
    assert held(database) == (0, 0)


_RAISE = Statement(
    controllers.update()
    .where(controllers.c.name == sa.bindparam("of_name"))
    .values(seen_us=controllers.c.seen_us + 1)
)
_SEEN = Statement(sa.select(controllers.c.name, controllers.c.seen_us))


def test_what_was_put_off_is_seen_by_what_comes_after(database: Database) -> None:
    def work(tx: Transaction) -> list[int]:
        seen = []
        insert(tx, controllers, [{"name": "a", **ROW}])
        insert(tx, controllers, [{"name": "b", **ROW}])
        for _ in range(3):  # the same row again and again, and one that was just inserted
            tx.later(_RAISE, {"of_name": "a"}, {"of_name": "b"})
        seen.append(sum(row.seen_us for row in tx.rows(_SEEN)))
        tx.later(_RAISE, {"of_name": "a"})
        total = sa.select(sa.func.sum(controllers.c.seen_us))
        seen.append(int(tx.connection.scalar(total) or 0))
        tx.later(_RAISE, {"of_name": "a"})
        return seen

    assert database.write(work) == [6, 7]
    rows = database.read(lambda tx: {row.name: row.seen_us for row in tx.rows(_SEEN)})
    assert rows == {"a": 5, "b": 3}


def test_what_the_database_refuses_at_last_is_refused_alone(database: Database) -> None:
    def add(name: str) -> Callable[[Transaction], None]:
        return lambda tx: insert(tx, controllers, [{"name": name, **ROW}])

    outcomes = database.write_all([add("a"), add("a"), add("b")])
    assert [type(one.error) for one in outcomes] == [type(None), sa.exc.IntegrityError, type(None)]
    rows = database.read(lambda tx: sorted(row.name for row in tx.rows(_SEEN)))
    assert rows == ["a", "b"]
