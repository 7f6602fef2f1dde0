"""A database that fails: said with its reason, ends nothing, and all goes on when it is back.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import requests

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
