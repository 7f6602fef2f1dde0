"""A lease that a secret holds: renewed, taken over, fenced, run out, ended by an administrator.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import pytest

from outboard.client.http import PoolConnection
from outboard.client.pool import Pool
from outboard.errors import MalformedRequest, NotFound, SessionEnded, Stale
from tests.unit.conftest import Outboard, eventually


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@pytest.fixture
def path(shared_outboard: Outboard) -> str:
    """The path of a running pool's socket."""
    assert shared_outboard("gpus").returncode == 0
    return str(shared_outboard.runtime / "pool.sock")


@pytest.fixture
def pool(path: str) -> Iterator[Pool]:
    with_connection = Pool(PoolConnection.over_unix(path), embedded=True)
    yield with_connection
    with_connection.close()


def obtain(pool: Pool, secret: str) -> str:
    share: dict[str, object] = {"millionths": 100_000}
    granted = pool.request(1, share, 0.0, "service", os.urandom(16).hex(), sha256(secret))
    return granted.session.session


def test_a_held_session_outlives_its_connection(path: str, pool: Pool) -> None:
    session = obtain(pool, "one")
    pool.close()
    again = Pool(PoolConnection.over_unix(path), embedded=True)
    assert again.renew(session, "one").lease_s == 180
    again.release(session)
    again.close()


def test_a_takeover_raises_the_epoch_and_fences_the_last_holder(pool: Pool) -> None:
    session = obtain(pool, "one")
    granted = pool.take_over(session, "one", sha256("two"))
    assert (granted.session.session, granted.epoch) == (session, 2)
    with pytest.raises(Stale):
        pool.renew(session, "one")
    with pytest.raises(Stale):
        pool.take_over(session, "one", sha256("three"))
    assert pool.renew(session, "two").session.session == session
    pool.release(session)


def test_nobody_renews_or_takes_over_without_the_secret(pool: Pool) -> None:
    session = obtain(pool, "one")
    for wrong in ("", "two"):
        with pytest.raises(Stale):
            pool.renew(session, wrong)
        with pytest.raises(Stale):
            pool.take_over(session, wrong, sha256("two"))
    with pytest.raises(MalformedRequest):
        pool.take_over(session, "one", "two")
    pool.release(session)


def test_a_holder_is_told_that_an_administrator_ended_it(path: str, pool: Pool) -> None:
    session = obtain(pool, "one")
    connection = PoolConnection.over_unix(path)
    connection.call("DELETE", f"/v1/sessions/{session}", {"reason": "maintenance"})
    with pytest.raises(SessionEnded, match="maintenance"):
        pool.renew(session, "one")
    connection.close()


def test_a_lease_that_nobody_renews_ends(outboard: Outboard) -> None:
    assert outboard("gpus", OUTBOARD_LEASE="1s").returncode == 0
    pool = Pool(PoolConnection.over_unix(str(outboard.runtime / "pool.sock")), embedded=True)
    session = obtain(pool, "one")
    eventually(lambda: pool.get("/v1/sessions")["sessions"] == [], "the lease has run out")
    with pytest.raises(NotFound):
        pool.renew(session, "one")
    pool.close()
