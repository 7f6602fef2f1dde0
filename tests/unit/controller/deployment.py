"""A controller with its API on a loopback port, over a ledger with nodes that have no agents.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import requests
import sqlalchemy as sa
import uvicorn

from outboard.controller.app import create_app
from outboard.controller.service import Pace, Service
from outboard.ledger import allocations, nodes, subjects, tokens
from outboard.ledger.database import Database
from outboard.ledger.grants import Granted
from outboard.ledger.requests import SECOND_US, Terms
from outboard.ledger.schema import allocations as allocations_table
from outboard.ledger.transaction import Transaction
from outboard.model.node import Device, Node
from outboard.model.session_file import SessionDevice, SessionFile, SessionNode

MIB = 1 << 20
HANG_GUARD_S = 60.0
TERMS = Terms(
    lease_us=9 * SECOND_US, pickup_us=3 * SECOND_US, waiting_us=3 * SECOND_US, silent_us=None
)
PACE = Pace(keep_s=0.2, feed_s=0.05, reload_s=1.0, grace_s=0.0)


class PlainSessions:
    """Session files whose grants nobody could use: no agent verifies them here."""

    def session_file(self, tx: Transaction, made: Granted) -> tuple[SessionFile, int]:
        names = list(dict.fromkeys(one.node for one in made.devices))
        return SessionFile(
            made.session,
            nodes=[SessionNode(name, "127.0.0.1:1", "none") for name in names],
            devices=[
                SessionDevice(names.index(one.node), one.index, "u", "n", one.share_bytes)
                for one in made.devices
            ],
            grant=f"{made.allocation}.{made.epoch}",
            key="0" * 64,
        ), tx.now_us // SECOND_US + 600


def node(name: str, devices: int, capacity_mib: int = 1024) -> Node:
    made = tuple(
        Device(
            index=index,
            uuid=f"GPU-{name}-{index}",
            name="Test GPU",
            total_bytes=(capacity_mib + 1) * MIB,
            capacity_bytes=capacity_mib * MIB,
            context_bytes=MIB,
            minimum_share_bytes=MIB,
            compute_capability="8.0",
            pci="0000:01:00.0",
            multiprocessors=8,
        )
        for index in range(devices)
    )
    return Node(name, f"{name}:7861", "psk", "driver", 13000, "p", True, made)


def release_ending(database: Database) -> int:
    """What agents would say: the workers of everything that is ending are gone."""
    state = allocations_table.c.state == "ending"
    names = database.read(
        lambda tx: (
            tx.connection.execute(sa.select(allocations_table.c.id).where(state)).scalars().all()
        )
    )
    for name in names:
        database.write(lambda tx, name=name: allocations.release(tx, str(name)))  # type: ignore[misc]
    return len(names)


class Server(uvicorn.Server):
    """Cuts off who is still connected at its end; left alone, asyncio calls that not closed."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0.05)  # until the loop has told their protocols


def forget_connections() -> None:
    """What was accepted while a server ended, and is nobody's, goes without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class Deployment:
    """The running controller, and tokens for its users."""

    def __init__(self, url: str, devices: int = 2, agents: bool = True, pace: Pace = PACE) -> None:
        self.database = Database(url)
        self.database.write(lambda tx: nodes.register_node(tx, node("n1", devices)))
        self.agents_work = agents
        self.service = Service(self.database, TERMS, pace)
        self.app = create_app(self.service, PlainSessions())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        config = uvicorn.Config(
            self.app, log_config=None, lifespan="on", timeout_graceful_shutdown=1
        )
        self._server = Server(config)
        self._thread = threading.Thread(target=self._serve, name="controller")
        self._agents = threading.Thread(target=self._work, name="agents")
        self._thread.start()
        self._agents.start()
        deadline = time.monotonic() + HANG_GUARD_S
        while not self._server.started:
            assert time.monotonic() < deadline and self._thread.is_alive(), "it did not start"
            time.sleep(0.005)

    def token(self, user: str, *scopes: str) -> str:
        """A new token of a user, who is made if need be."""

        def work(tx: Transaction) -> str:
            subjects.ensure_user(tx, user)
            return tokens.create_token(tx, ("user", user), scopes or ("use",))

        return self.database.write(work)

    def client(self, user: str, *scopes: str) -> Client:
        return Client(self.url, self.token(user, *scopes))

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(HANG_GUARD_S)
        self._agents.join(HANG_GUARD_S)
        self._listener.close()
        self.database.close()
        assert not self._thread.is_alive()
        forget_connections()

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._listener]))

    def _work(self) -> None:
        while self._thread.is_alive():
            if self.agents_work:
                with contextlib.suppress(Exception):
                    if release_ending(self.database):
                        self.service.poke()
            time.sleep(0.02)


class Client:
    """One user's calls."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self.token = token
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """(status, decoded body)."""
        answer = self._session.request(method, self._url + path, json=body, timeout=HANG_GUARD_S)
        return answer.status_code, answer.json()

    def request(self, **more: Any) -> tuple[int, dict[str, Any]]:
        """Ask for one GPU, or what `more` says."""
        body = {"id": os.urandom(16).hex(), "gpus": 1, "hold_s": 0.0, **more}
        return self.call("POST", "/v1/requests", body)

    def granted(self, **more: Any) -> str:
        """Ask, expect a grant, return the session."""
        status, answer = self.request(**more)
        assert status == 201, answer
        return str(answer["session"]["session"])

    def close(self) -> None:
        self._session.close()


@contextlib.contextmanager
def deployed(url: str, **more: Any) -> Iterator[Deployment]:
    """A deployment for the time of the context."""
    made = Deployment(url, **more)
    try:
        yield made
    finally:
        made.close()


def eventually(condition: Any, what: str) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + HANG_GUARD_S
    while not condition():
        assert time.monotonic() < deadline, f"still not so: {what}"
        time.sleep(0.01)
