"""The published schema holds: whatever fits it, or nearly, is answered without a failure.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from outboard.controller.app import create_app
from outboard.controller.service import Service
from outboard.ledger.database import Database
from tests.unit.controller.deployment import TERMS, Deployment, PlainSessions, deployed

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis

_EXAMPLES = 15


def published() -> schemathesis.BaseSchema:
    database = Database("sqlite://")
    try:
        return schemathesis.openapi.from_dict(
            create_app(Service(database, TERMS), PlainSessions()).openapi()
        )
    finally:
        database.close()


SCHEMA = published()
OPERATIONS = {
    f"{one.ok().method} {one.ok().path}": one.ok()
    for one in SCHEMA.get_all_operations()
    if one.ok().path != "/v1/events"  # a stream has no end to wait for
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployment, str]]:
    """A deployment, and a token with which everything may be done."""
    path: Path = tmp_path_factory.mktemp("schema")
    with deployed(f"sqlite:///{path}/ledger.sqlite") as made:
        yield made, made.token("root", "admin", "use")


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_no_call_makes_the_controller_fail(name: str, pool: tuple[Deployment, str]) -> None:
    deployment, token = pool
    answered = set()

    @given(case=OPERATIONS[name].as_strategy())
    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def call(case: schemathesis.Case) -> None:
        if isinstance(case.body, dict) and "hold_s" in case.body:
            case.body["hold_s"] = 0.0
        if case.query and "hold_s" in case.query:
            case.query["hold_s"] = "0"
        headers = {"Authorization": f"Bearer {token}"}
        answer = case.call(base_url=deployment.url, headers=headers, timeout=30)
        answered.add(answer.status_code)
        assert answer.status_code < 500, f"{answer.status_code}: {answer.text}"
        if answer.status_code >= 400:
            assert answer.json()["code"]

    call()
    print(name, sorted(answered))
