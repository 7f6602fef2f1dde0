"""A restored backup grants nothing twice: what it does not know of is ended before the first grant.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from outboard.errors import ConfigurationError, LedgerLocked
from outboard.ledger import nodes, requests, subjects
from outboard.ledger.backup import back_up, put_back
from outboard.ledger.database import Database
from outboard.ledger.grants import Granted, Lost, granted_of
from outboard.ledger.requests import Terms
from outboard.model.request import GrantedDevice, Request, Share
from tests.unit.ledger.simulation import MIB, node

TERMS = Terms(silent_us=None)


def grant(database: Database, amount_bytes: int) -> Granted | Lost:
    request = Request(
        os.urandom(16).hex(), 1, Share(amount_bytes=amount_bytes), None, 0, 0, "", user="ann"
    )
    chosen = [GrantedDevice("n1", 0, amount_bytes)]

    def work(tx: requests.Transaction) -> Granted | Lost:
        requests.submit(tx, request)
        return requests.grant(tx, request.id, chosen, TERMS)

    return database.write(work)


@pytest.fixture
def url(tmp_path: Path) -> str:
    made = f"sqlite:///{tmp_path}/ledger.sqlite"
    database = Database(made)
    database.write(lambda tx: nodes.register_node(tx, node("n1", [100 * MIB])))
    database.write(lambda tx: subjects.ensure_user(tx, "ann"))
    database.close()
    return made


def test_a_restored_backup_grants_nothing_twice(url: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy")
    database = Database(url)
    known = grant(database, 30 * MIB)
    assert isinstance(known, Granted)
    back_up(url, copy)  # while the controller has it
    later = grant(database, 60 * MIB)
    assert isinstance(later, Granted)
    database.close()

    base = put_back(url, copy, TERMS)
    database = Database(url)
    # The copy thinks that 70 MiB are free; 60 of them are in use on the node.
    lost = grant(database, 70 * MIB)
    assert isinstance(lost, Lost)
    assert lost.reason == "n1 has not been heard of since the ledger was restored"
    running = {known.allocation: known.epoch, later.allocation: later.epoch}
    ends = database.write(lambda tx: nodes.reconcile(tx, "n1", running))
    assert ends == [later.allocation]
    again = database.read(lambda tx: granted_of(tx, known.request))
    assert again.epoch == base + 1 > later.epoch
    assert isinstance(grant(database, 70 * MIB), Granted)
    database.close()


def test_a_running_controllers_ledger_is_not_replaced(url: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy")
    back_up(url, copy)
    database = Database(url)
    with pytest.raises(LedgerLocked):
        put_back(url, copy)
    database.close()


@pytest.mark.parametrize("content", [b"", b"nonsense" * 1000])
def test_what_is_no_backup_is_refused_and_the_ledger_stays(
    url: str, tmp_path: Path, content: bytes
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(content)
    with pytest.raises(ConfigurationError, match="cannot be put back"):
        put_back(url, str(wrong))
    database = Database(url)
    assert isinstance(grant(database, MIB), Granted)
    database.close()


def test_postgresql_is_told_what_to_use() -> None:
    with pytest.raises(ConfigurationError, match="not a SQLite file"):
        back_up("postgresql:///x", "/nowhere")
