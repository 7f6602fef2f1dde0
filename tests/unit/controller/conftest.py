"""Controllers on both databases.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.controller.deployment import Client, Deployment, deployed
from tests.unit.ledger.postgres import Postgres, private_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL server for all tests here."""
    with private_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    """A controller with one node of two devices, 1024 MiB each."""
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").url()
    with deployed(url) as made:
        yield made


@pytest.fixture
def ann(deployment: Deployment) -> Iterator[Client]:
    client = deployment.client("ann")
    yield client
    client.close()


@pytest.fixture
def bob(deployment: Deployment) -> Iterator[Client]:
    client = deployment.client("bob")
    yield client
    client.close()


@pytest.fixture
def admin(deployment: Deployment) -> Iterator[Client]:
    client = deployment.client("root", "admin")
    yield client
    client.close()
