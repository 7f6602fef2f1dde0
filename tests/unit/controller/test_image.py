"""The controller's picture of the pool: put right server by server, whatever it has missed.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outboard.controller.image import Image, read_all, read_changed
from outboard.ledger import nodes
from outboard.ledger.changes import forget_changes
from outboard.ledger.database import Database
from outboard.ledger.requests import Terms
from outboard.ledger.schema import changes, devices
from outboard.ledger.transaction import Transaction
from outboard.model.request import GrantedDevice, Request, Share
from outboard.scheduler.placement import Placement
from tests.unit.controller.deployment import MIB, node

TERMS = Terms()
ASKED = Request("1" * 32, 1, Share(amount_bytes=MIB), None, 0, 0, "p", user="ann")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/ledger.sqlite")
    for name in ("n1", "n2"):
        made.write(lambda tx, name=name: nodes.register_node(tx, node(name, 2)))  # type: ignore[misc]
    yield made
    made.close()


def keys(image: Image) -> list[tuple[str, int]]:
    assert {state.key for state in image.states()} == set(image.devices)
    return sorted(image.devices)


def test_what_was_missed_is_put_right_server_by_server(database: Database) -> None:
    image = Image()
    image.take_in(database.read(lambda tx: read_all(tx, TERMS)))
    image.hold([GrantedDevice("n1", 0, MIB)])

    def unnoticed(tx: Transaction) -> None:
        gone = (devices.c.node == "n2") & (devices.c.idx == 1)
        tx.connection.execute(devices.delete().where(gone))
        kept = (devices.c.node == "n2") & (devices.c.idx == 0)
        tx.connection.execute(devices.update().where(kept).values(granted_bytes=MIB))

    database.write(unnoticed)
    for read, there in ((["n1"], 4), (["n2"], 3)):
        image.take_in(
            database.read(lambda tx, names=read: read_changed(tx, TERMS, [], names))  # type: ignore[misc]
        )
        assert len(keys(image)) == there
    assert ("n2", 1) not in keys(image)
    assert image.devices["n2", 0].granted_bytes == MIB
    held = next(state for state in image.states() if state.key == ("n1", 0))
    assert held.granted_bytes == MIB  # what is being granted stays counted


def test_a_device_that_has_gone_is_not_chosen(database: Database) -> None:
    image = Image()
    image.take_in(database.read(lambda tx: read_all(tx, TERMS)))
    chosen = image.choose(ASKED)
    assert isinstance(chosen, Placement)
    gone = chosen.devices[0].node
    database.write(lambda tx: tx.connection.execute(devices.delete().where(devices.c.node == gone)))
    image.take_in(database.read(lambda tx: read_changed(tx, TERMS, [], [gone])))
    chosen = image.choose(ASKED)
    assert isinstance(chosen, Placement)
    assert chosen.devices[0].node != gone


def test_old_changes_are_forgotten_in_portions(database: Database) -> None:
    def fill(tx: Transaction) -> None:
        rows = [{"kind": "k", "subject": "s", "at_us": tx.now_us - 10 + n % 2} for n in range(25)]
        tx.connection.execute(changes.delete())
        tx.connection.execute(changes.insert(), rows)
        tx.connection.execute(
            changes.insert().values(kind="k", subject="new", at_us=tx.now_us + 10**12)
        )

    database.write(fill)
    forgotten = [database.write(lambda tx: forget_changes(tx, 0, 10)) for _ in range(4)]
    assert forgotten == [10, 10, 5, 0]
    left = database.read(lambda tx: tx.connection.execute(changes.select()).all())
    assert [row.subject for row in left] == ["new"]
