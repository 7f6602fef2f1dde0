"""A database that fails: said with its reason, ends nothing, and all goes on when it is back.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import requests
import sqlalchemy as sa

from tests.unit.controller.deployment import deployed, eventually
from tests.unit.ledger.postgres import Postgres


def test_a_stopped_database_is_a_503_with_the_reason_and_ends_no_lease(postgres: Postgres) -> None:
    with deployed(postgres.url()) as deployment:
        ann = deployment.client("ann")
        session = ann.granted()
        assert ann.call("POST", f"/v1/sessions/{session}/renew")[0] == 200
        postgres.stop()
        try:
            status, problem = ann.request()
            assert (status, problem["code"]) == (503, "database_unavailable")
            assert "cannot be used" in problem["detail"]
            assert requests.get(f"{deployment.url}/healthz", timeout=30).status_code == 200
            assert requests.get(f"{deployment.url}/readyz", timeout=30).status_code == 503
        finally:
            postgres.start()
        eventually(
            lambda: requests.get(f"{deployment.url}/readyz", timeout=30).status_code == 200,
            "the controller is ready again",
        )
        status, told = ann.call("GET", f"/v1/sessions/{session}")
        assert (status, told["state"]) == (200, "active")
        assert ann.request()[0] == 201
        ann.close()


def test_a_full_disk_is_a_503_with_the_reason_and_ends_no_lease(tmp_path: Path) -> None:
    with deployed(f"sqlite:///{tmp_path}/ledger.sqlite") as deployment:
        ann = deployment.client("ann")
        session = ann.granted()
        renew = ("POST", f"/v1/sessions/{session}/renew")
        assert ann.call(*renew)[0] == 200
        most_pages = 1  # that is: no more than there are

        @sa.event.listens_for(deployment.database.engine, "checkout")
        def bound(connection: sqlite3.Connection, _record: object, _proxy: object) -> None:
            connection.execute(f"PRAGMA max_page_count = {most_pages}")

        status, problem = ann.request()
        while status != 503:  # what is free in the file goes first
            ann.call(*renew)  # a change in place, which needs no more room
            status, problem = ann.request()
        assert problem["code"] == "database_unavailable"
        assert "full" in problem["detail"]
        status, told = ann.call("GET", f"/v1/sessions/{session}")
        assert (status, told["state"]) == (200, "active")
        most_pages = 1 << 30
        assert ann.request()[0] in (201, 202)
        ann.close()
