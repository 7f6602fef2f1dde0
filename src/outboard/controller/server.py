"""The controller's process: the ledger, the fleet of agents, the API, served over TLS.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import contextlib
import gc
import logging
import socket
import sys
import time
from dataclasses import dataclass, replace

import uvicorn
from fastapi import FastAPI

from outboard.controller.access import Access
from outboard.controller.app import create_app
from outboard.controller.fleet import Fleet
from outboard.controller.grants import GrantMaker
from outboard.controller.installation import Installation, announce, read_installation
from outboard.controller.node_routes import agent_routes, public_routes
from outboard.controller.service import Pace, Service
from outboard.controller.turns import Turns
from outboard.errors import OutboardError
from outboard.ledger.database import Database
from outboard.ledger.requests import SECOND_US, Terms
from outboard.notify import Notifier
from outboard.settings import load_settings

log = logging.getLogger("outboard.controller.server")

_KEEPS_OF_A_REPORT = 2
# A thread that comes back from the database waits so long for the event loop's, each time.
_SWITCH_S = 0.0005


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes work with."""

    installation: Installation
    database: Database
    fleet: Fleet
    grants: GrantMaker
    terms: Terms
    pace: Pace
    turns: Turns


def make_parts(
    installation: Installation,
    database: Database,
    terms: Terms | None = None,
    pace: Pace | None = None,
) -> Parts:
    """One controller's parts over an open ledger."""
    terms, pace, turns = terms or Terms(), pace or Pace(), Turns(database)
    fleet = Fleet(
        database,
        installation.sealing,
        installation.authority.mark,
        installation.configuration.addresses,
        terms,
        installation.bequest(),
        # By default every ten seconds, a lease being 180: a report and its write may be lost.
        report_every_s=_KEEPS_OF_A_REPORT * pace.keep_s,
        flush_every_s=pace.keep_s,
        turns=turns,
    )
    grants = GrantMaker(installation.signing, installation.sealing)
    return Parts(installation, database, fleet, grants, terms, pace, turns)


def make_app(parts: Parts) -> FastAPI:
    """The API over the ledger, with the routes that agents call, and the work behind them."""
    fleet = parts.fleet
    service = Service(parts.database, parts.terms, parts.pace, fleet.poke, parts.turns)
    access = Access(service)
    authority = parts.installation.authority

    async def flush_at_last() -> None:
        try:
            await fleet.flush_for_ever()
        finally:
            with contextlib.suppress(OutboardError):
                fleet.flush()

    return create_app(
        service,
        parts.grants,
        held=fleet.held_bytes,
        figures=fleet.figures,
        access=access,
        routers=(
            public_routes(fleet, authority.credential.certificate_pem.decode()),
            agent_routes(fleet, access.authenticate),
        ),
        ca_mark=authority.mark,
        work=(fleet.watch_for_ever, flush_at_last),
        report=fleet.report,
    )


def terms_of(lease_s: float) -> tuple[Terms, Pace]:
    """How long things hold, and how often they are looked at, with leases of this length."""
    usual, pace = Terms(), Pace()
    scale = lease_s * SECOND_US / usual.lease_us
    terms = replace(usual, lease_us=int(lease_s * SECOND_US))
    keep_s = pace.keep_s * min(1.0, scale)
    return terms, replace(pace, keep_s=keep_s, grace_s=pace.grace_s * scale)


def serve(state: str) -> int:
    """Serve the API of the controller in this folder until SIGTERM."""
    installation = read_installation(state)
    database = Database(installation.configuration.database)
    sys.setswitchinterval(_SWITCH_S)
    try:
        announce(database, installation)
        terms, pace = terms_of(load_settings().controller_lease_s)
        app = make_app(make_parts(installation, database, terms, pace))
        _Server(server_configuration(app, installation)).run()
    finally:
        database.close()
    return 0


class _Server(uvicorn.Server):
    """Tells systemd when it listens, and that its loop turns."""

    def __init__(self, configuration: uvicorn.Config) -> None:
        super().__init__(configuration)
        self._notifier = Notifier()
        self._next_sign_s = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # The pool is in memory now: to collect garbage among all its devices takes a tenth of a
        # second, and everything waits meanwhile.
        gc.collect()
        gc.freeze()
        if self.started:
            self._notifier.tell("READY=1")

    async def on_tick(self, counter: int) -> bool:
        if self._notifier.watchdog_s is not None and time.monotonic() >= self._next_sign_s:
            self._notifier.tell("WATCHDOG=1")
            self._next_sign_s = time.monotonic() + self._notifier.watchdog_s
        return await super().on_tick(counter)


def server_configuration(app: FastAPI, installation: Installation) -> uvicorn.Config:
    """TLS 1.3 with the installation's certificate; no header that tells more than needed."""
    host, _, port = installation.configuration.listen.rpartition(":")
    context = installation.server_context()
    configuration = uvicorn.Config(
        app,
        host=host.strip("[]"),
        port=int(port),
        ssl_certfile=installation.path("server.pem"),
        ssl_keyfile=installation.path("server.key"),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=2,
    )
    configuration.load()
    configuration.ssl = context
    return configuration
