"""The controller's process: the ledger, the fleet of agents, the API, served over TLS.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from outboard import __version__
from outboard.controller.fleet import Fleet
from outboard.controller.grants import GrantMaker
from outboard.controller.http import problem
from outboard.controller.installation import Installation, announce, read_installation
from outboard.controller.node_routes import agent_routes, public_routes
from outboard.errors import OutboardError, Unauthenticated
from outboard.ledger.database import Database
from outboard.ledger.requests import Terms
from outboard.ledger.tokens import Token, check_token

log = logging.getLogger("outboard.controller.server")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes work with."""

    installation: Installation
    database: Database
    fleet: Fleet
    grants: GrantMaker


def make_parts(installation: Installation, database: Database, terms: Terms | None = None) -> Parts:
    """One controller's parts over an open ledger."""
    fleet = Fleet(
        database,
        installation.sealing,
        installation.authority.mark,
        installation.configuration.addresses,
        terms or Terms(),
    )
    return Parts(
        installation, database, fleet, GrantMaker(installation.signing, installation.sealing)
    )


def make_app(parts: Parts) -> FastAPI:
    """The API. What needs a token says so itself; nothing is open by omission."""

    @contextlib.asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(work)
            for work in (parts.fleet.watch_for_ever(), parts.fleet.flush_for_ever())
        ]
        yield
        for task in tasks:
            task.cancel()
        await run_in_threadpool(parts.fleet.flush)

    async def authenticate(request: Request) -> Token:
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not text:
            raise Unauthenticated("this needs a token", "sign in: outboard login URL")
        return await run_in_threadpool(
            parts.database.read, lambda tx: check_token(tx, text.strip())
        )

    app = FastAPI(title="Outboard", version=__version__, lifespan=life)
    authority = parts.installation.authority.credential.certificate_pem.decode()
    app.include_router(public_routes(parts.fleet, authority))
    app.include_router(agent_routes(parts.fleet, authenticate))

    @app.exception_handler(OutboardError)
    async def refused(_request: Request, error: OutboardError) -> JSONResponse:
        status, body = problem(error, os.urandom(8).hex())
        return JSONResponse(body, status, media_type="application/problem+json")

    return app


def serve(state: str) -> int:
    """Serve the API of the controller in this folder until SIGTERM."""
    installation = read_installation(state)
    database = Database(installation.configuration.database)
    try:
        announce(database, installation)
        app = make_app(make_parts(installation, database))
        uvicorn.Server(server_configuration(app, installation)).run()
    finally:
        database.close()
    return 0


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
