"""What was used, as workers count it: by whom, when, and never of what was not granted.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from outboard.errors import MalformedRequest
from outboard.ledger import nodes, requests, subjects
from outboard.ledger.accounting import (
    Use,
    close_usage,
    held,
    processes,
    record_usage,
    used,
)
from outboard.ledger.database import Database
from outboard.ledger.grants import Granted
from outboard.ledger.requests import Terms
from outboard.model.account import DAY_US
from outboard.model.request import GrantedDevice, Request, Share
from tests.unit.ledger.simulation import MIB, node

FOREVER = 1 << 60


@pytest.fixture
def database(new_url: Callable[[], str]) -> Iterator[Database]:
    made = Database(new_url())
    made.write(lambda tx: nodes.register_node(tx, node("n1", [100 * MIB, 100 * MIB])))
    for user in ("ada", "ben"):
        made.write(lambda tx, user=user: subjects.ensure_user(tx, user))
    yield made
    made.close()


def grant(database: Database, user: str, index: int) -> Granted:
    request = Request(os.urandom(16).hex(), 1, Share(amount_bytes=MIB), None, 0, 0, "", user=user)

    def write(tx: requests.Transaction) -> Granted:
        requests.submit(tx, request)
        chosen = [GrantedDevice("n1", index, MIB)]
        made = requests.grant(tx, request.id, chosen, Terms(silent_us=None))
        assert isinstance(made, Granted)
        return made

    return database.write(write)


def use_of(granted: Granted, worker: str, **more: int | str | None) -> Use:
    first = Use(
        worker=worker,
        node="n1",
        idx=granted.devices[0].index,
        session=granted.session,
        allocation=granted.allocation,
        uid=1000,
        pid=1,
        program="train",
        started_us=0,
        ended_us=None,
        busy_us=0,
        calls=0,
        peak_bytes=0,
    )
    return replace(first, **more)  # type: ignore[arg-type]


def test_a_later_report_replaces_the_earlier_until_the_last(database: Database) -> None:
    granted = grant(database, "ada", 0)

    def report(**more: int | None) -> dict[str, object]:
        database.write(lambda tx: record_usage(tx, [use_of(granted, "w1", **more)]))
        (row,) = database.read(lambda tx: processes(tx, 0, FOREVER))
        return {name: row[name] for name in ("calls", "busy_us", "ended_us")}

    assert report(calls=1, busy_us=10) == {"calls": 1, "busy_us": 10, "ended_us": None}
    last = {"calls": 5, "busy_us": 50, "ended_us": 99}
    assert report(**last) == last
    assert report(calls=3, busy_us=30) == last, "a report that was late"


def test_an_agent_speaks_of_what_was_granted_on_its_node_alone(database: Database) -> None:
    granted = grant(database, "ada", 0)
    foreign = [
        use_of(granted, "w1", idx=1),
        use_of(granted, "w2", session="s-other"),
        use_of(granted, "w3", allocation="a-other"),
        use_of(granted, "w4", node="n2"),
    ]
    database.write(lambda tx: record_usage(tx, foreign))
    assert database.read(lambda tx: processes(tx, 0, FOREVER)) == []


def test_what_was_used_is_summed_by_any_of_the_keys(database: Database) -> None:
    ada, ben = grant(database, "ada", 0), grant(database, "ben", 1)
    ended = {"started_us": 1000, "ended_us": 2000}
    uses = [
        use_of(ada, "w1", **ended, busy_us=100, calls=3, peak_bytes=70, uid=1000),
        use_of(ada, "w2", **ended, busy_us=200, calls=4, peak_bytes=60, uid=1001, pid=2),
        use_of(ben, "w3", **ended, busy_us=400, calls=5, peak_bytes=50, uid=1000),
    ]
    database.write(lambda tx: record_usage(tx, uses))

    def by(*keys: str) -> list[tuple[object, ...]]:
        lines = database.read(lambda tx: used(tx, 0, FOREVER, keys))
        return [(*line.keys, line.busy_us, line.calls, line.peak_bytes) for line in lines]

    assert by("user") == [("ada", 300, 7, 70), ("ben", 400, 5, 50)]
    assert by("user", "uid") == [
        ("ada", "1000", 100, 3, 70),
        ("ada", "1001", 200, 4, 60),
        ("ben", "1000", 400, 5, 50),
    ]
    assert by("device") == [("n1/0", 300, 7, 70), ("n1/1", 400, 5, 50)]
    assert by("session") == sorted([(ada.session, 300, 7, 70), (ben.session, 400, 5, 50)])
    assert by("process") == [("1 train", 500, 8, 70), ("2 train", 200, 4, 60)]
    assert by("host") == [("", 700, 12, 70)]
    with pytest.raises(MalformedRequest, match="cannot be grouped by colour"):
        by("colour")
    with pytest.raises(MalformedRequest, match="cannot be grouped by process"):
        database.read(lambda tx: held(tx, 0, FOREVER, ["process"]))


def test_a_process_counts_by_the_part_of_its_time(database: Database) -> None:
    granted = grant(database, "ada", 0)
    night = use_of(
        granted,
        "w1",
        started_us=DAY_US * 9 // 10,
        ended_us=DAY_US * 13 // 10,
        busy_us=4000,
        calls=400,
        peak_bytes=7,
    )
    database.write(lambda tx: record_usage(tx, [night]))

    def busy(since_us: int, until_us: int, *keys: str) -> list[tuple[object, ...]]:
        lines = database.read(lambda tx: used(tx, since_us, until_us, keys))
        return [(*line.keys, line.busy_us, line.calls, line.peak_bytes) for line in lines]

    assert busy(0, FOREVER, "day") == [("1970-01-01", 1000, 100, 7), ("1970-01-02", 3000, 300, 7)]
    assert busy(DAY_US, DAY_US * 11 // 10, "user") == [("ada", 1000, 100, 7)]
    assert busy(DAY_US * 2, FOREVER, "user") == []


def test_what_nobody_said_the_end_of_ended_with_its_allocation(database: Database) -> None:
    granted = grant(database, "ada", 0)
    other = grant(database, "ben", 1)
    uses = [use_of(granted, "w1"), use_of(granted, "w2", ended_us=5), use_of(other, "w3")]
    database.write(lambda tx: record_usage(tx, uses))
    database.write(lambda tx: close_usage(tx, granted.allocation, "n1"))
    rows = database.read(lambda tx: processes(tx, 0, FOREVER))
    ends = {str(row["worker"]): row["ended_us"] for row in rows}
    assert ends["w1"] is not None
    assert (ends["w2"], ends["w3"]) == (5, None)
