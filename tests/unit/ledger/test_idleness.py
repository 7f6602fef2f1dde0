"""Idle limits: whose, since when, warned before, and never by an agent's silence.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from outboard.ledger import idleness, limits, nodes, requests, subjects
from outboard.ledger.database import Database
from outboard.ledger.grants import Granted
from outboard.ledger.requests import Terms
from outboard.ledger.schema import allocations
from outboard.ledger.schema import nodes as node_table
from outboard.model.request import GrantedDevice, Request, Share
from tests.unit.ledger.simulation import MIB, node

SECOND = 1_000_000
HOUR = 3600


@pytest.fixture
def database(new_url: Callable[[], str]) -> Iterator[Database]:
    made = Database(new_url())
    made.write(lambda tx: nodes.register_node(tx, node("n1", [100 * MIB])))
    made.write(lambda tx: subjects.ensure_user(tx, "ada"))
    yield made
    made.close()


def grant(database: Database) -> str:
    request = Request(os.urandom(16).hex(), 1, Share(amount_bytes=MIB), None, 0, 0, "", user="ada")

    def write(tx: requests.Transaction) -> str:
        requests.submit(tx, request)
        made = requests.grant(tx, request.id, [GrantedDevice("n1", 0, MIB)], Terms(silent_us=None))
        assert isinstance(made, Granted)
        return made.allocation

    return database.write(write)


def limit(database: Database, seconds: int, subject: tuple[str, str] = ("user", "ada")) -> None:
    database.write(lambda tx: limits.set_limit(tx, subject, "idle_s", seconds))


def age(database: Database, seconds: int) -> None:
    """Everything was granted, used and warned so much earlier; the node is heard of now."""

    def write(tx: requests.Transaction) -> None:
        columns = ("started_us", "idle_warned_us")
        values = {name: allocations.c[name] - seconds * SECOND for name in columns}
        used = allocations.c.used_us
        values["used_us"] = sa.case((used > 0, used - seconds * SECOND), else_=used)
        tx.connection.execute(allocations.update().values(values))
        nodes.heartbeats(tx, ["n1"])

    database.write(write)


def judged(database: Database) -> idleness.Idleness | None:
    found = database.read(idleness.judge)
    assert len(found) <= 1
    return found[0] if found else None


def state(database: Database, name: str) -> tuple[str, str]:
    row = database.read(
        lambda tx: tx.connection.execute(allocations.select().where(allocations.c.id == name)).one()
    )
    return row.state, row.reason


def test_without_a_limit_nobody_is_idle(database: Database) -> None:
    grant(database)
    age(database, 1000 * HOUR)
    assert judged(database) is None


@pytest.mark.parametrize("subject", [("user", "ada"), ("user", "*"), ("group", "lab")])
def test_it_is_warned_and_then_ended(database: Database, subject: tuple[str, str]) -> None:
    database.write(lambda tx: subjects.set_groups(tx, "ada", ["lab"]))
    name = grant(database)
    limit(database, HOUR, subject)
    age(database, HOUR // 2)
    assert judged(database) is None
    age(database, HOUR // 2 - 200)
    one = judged(database)
    assert one is not None
    assert (one.to_warn, one.over) == (True, False)
    assert not database.write(lambda tx: idleness.end_idle(tx, name))
    assert database.write(lambda tx: idleness.warn(tx, name))
    assert not database.write(lambda tx: idleness.warn(tx, name)), "it is warned once"
    one = judged(database)
    assert one is not None
    assert "has called nothing for 56m4" in one.notice
    assert "it ends in about 3m" in one.notice
    age(database, 200)
    assert database.read(idleness.judge)[0].over is False, "the warning was shorter ago than said"
    age(database, 100)
    assert database.write(lambda tx: idleness.end_idle(tx, name))
    assert state(database, name)[0] == "ending"
    assert state(database, name)[1].startswith("idle for 1h01m: ")


def test_a_call_after_the_warning_keeps_it(database: Database) -> None:
    name = grant(database)
    limit(database, HOUR)
    age(database, HOUR - 60)
    assert database.write(lambda tx: idleness.warn(tx, name))
    database.write(lambda tx: idleness.note_use(tx, {name: 5 * SECOND}))
    assert judged(database) is None
    database.write(lambda tx: idleness.note_use(tx, {name: 2000 * SECOND}))  # late, and older
    age(database, HOUR - 60)
    one = judged(database)
    assert one is not None
    assert one.to_warn, "the warning was before its last use"
    assert not database.write(lambda tx: idleness.end_idle(tx, name))


def test_a_limit_set_on_what_is_long_idle_warns_first(database: Database) -> None:
    name = grant(database)
    age(database, 10 * HOUR)
    limit(database, HOUR)
    assert not database.write(lambda tx: idleness.end_idle(tx, name))
    assert database.write(lambda tx: idleness.warn(tx, name))
    assert not database.write(lambda tx: idleness.end_idle(tx, name))


def test_an_agent_that_is_silent_says_nothing_of_idleness(database: Database) -> None:
    name = grant(database)
    limit(database, HOUR)
    age(database, 2 * HOUR)
    assert database.write(lambda tx: idleness.warn(tx, name))
    age(database, 2 * HOUR)
    # It was heard of for the last time when the session was new.
    silent = node_table.update().values(seen_us=node_table.c.seen_us - 4 * HOUR * SECOND)
    database.write(lambda tx: tx.connection.execute(silent))
    assert judged(database) is None
    assert not database.write(lambda tx: idleness.end_idle(tx, name))


def test_ones_own_limit_replaces_the_default(database: Database) -> None:
    grant(database)
    limit(database, 10 * HOUR)
    limit(database, HOUR, ("user", "*"))
    age(database, 2 * HOUR)
    one = judged(database)
    assert one is not None
    assert (one.limit_us, one.to_warn) == (10 * HOUR * SECOND, False)
