"""The API of a pool of several machines, as an ASGI application.

SPDX-License-Identifier: Apache-2.0

Every route but the few in `PUBLIC_PATHS` is denied before anything else is looked at, so a route
that forgets to ask for a token is still closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outboard import __version__
from outboard.controller.access import PUBLIC_PATHS, Access
from outboard.controller.answers import Answers
from outboard.controller.figures import FiguresOf
from outboard.controller.http import LARGEST_BODY_BYTES, problem
from outboard.controller.metrics import Metrics
from outboard.controller.parts import Parts
from outboard.controller.routes.administration import administration_routes
from outboard.controller.routes.health import health_routes
from outboard.controller.routes.pool import pool_routes
from outboard.controller.routes.records import record_routes
from outboard.controller.routes.requests import request_routes, session_routes
from outboard.controller.service import Service, SessionMaker
from outboard.controller.shortcuts import Report, Shortcuts
from outboard.errors import MalformedRequest, NotFound, OutboardError, Unauthenticated

log = logging.getLogger("outboard.controller.app")

_ROUTERS = (
    health_routes,
    request_routes,
    session_routes,
    pool_routes,
    administration_routes,
    record_routes,
)
_LARGEST_REPORT_BYTES = 4 << 20  # agents report all their sessions at once


def create_app(
    service: Service,
    maker: SessionMaker,
    held: Callable[[str], list[int] | None] = lambda _session: None,
    figures: FiguresOf = lambda _node, _index: {},
    access: Access | None = None,
    routers: Iterable[APIRouter] = (),
    ca_mark: str = "0" * 16,
    work: Iterable[Callable[[], Coroutine[Any, Any, None]]] = (),
    report: Report | None = None,
) -> FastAPI:
    """The application; its lifespan starts and closes the service.

    `held` says what a session's programs hold, `figures` what NVML says of a device; `routers` are
    further ones, that guard themselves; `work` runs beside, until it is cancelled; `report` takes
    what agents report.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        tasks = [asyncio.get_running_loop().create_task(one()) for one in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await service.close()

    app = FastAPI(
        title="Outboard",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    access = access or Access(service)
    answers = Answers(service, maker, held)
    metrics = Metrics(service, figures)
    parts = app.state.parts = Parts(service, access, answers, metrics, ca_mark)
    for router in (*_ROUTERS, *routers):
        app.include_router(router)
    app.add_exception_handler(OutboardError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_malformed)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_failure)
    shortcuts = Shortcuts(parts, report)
    app.add_middleware(_Guard, access=access, metrics=metrics, shortcuts=shortcuts)
    return app


class _Guard:
    """Denies what shows no token, bounds bodies, counts calls; outside of everything else."""

    def __init__(
        self, app: ASGIApp, access: Access, metrics: Metrics, shortcuts: Shortcuts
    ) -> None:
        self._app, self._access, self._metrics = app, access, metrics
        self._shortcuts = shortcuts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # No secret; asking the system for chance would let another thread have the interpreter.
        scope.setdefault("state", {})["request_id"] = f"{random.getrandbits(64):016x}"
        begun, status = time.monotonic(), [500]

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        try:
            request = Request(scope)
            if scope["path"] in PUBLIC_PATHS:
                if scope["path"].startswith("/v1/"):
                    self._access.brake.attempt(request.client.host if request.client else "")
                await self._app(scope, _bounded(scope, receive), counted)
            else:
                token = await self._access.authenticate(request)
                receive = _bounded(scope, receive)
                answer, receive = await self._shortcuts.answer(scope, receive, token)
                await (answer or self._app)(scope, receive, counted)
        except OutboardError as error:
            await _problem(error, scope["state"]["request_id"])(scope, receive, counted)
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if route != "none" else "none"
        self._metrics.calls.labels(method, route, status[0]).inc()
        self._metrics.seconds.labels(method, route).observe(time.monotonic() - begun)


def _bounded(scope: Scope, receive: Receive) -> Receive:
    """A body is at most so long, whatever its head says."""
    most = LARGEST_BODY_BYTES
    if scope["path"].startswith("/v1/nodes/"):
        most = _LARGEST_REPORT_BYTES
    left = [most]

    async def read() -> Message:
        message = await receive()
        left[0] -= len(message.get("body", b""))
        if left[0] < 0:
            raise MalformedRequest(f"the body is longer than {most} bytes")
        return message

    return read


def _problem(error: OutboardError, request_id: str) -> JSONResponse:
    status, content = problem(error, request_id)
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthenticated) else {}
    if status in (429, 503):
        headers["Retry-After"] = "5"
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def _id(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OutboardError)
    return _problem(error, _id(request))


async def _on_malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [
        f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()[:5]
    ]
    return _problem(MalformedRequest("; ".join(found)[:600]), _id(request))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = NotFound(f"{request.method} {request.url.path} is not part of this API", "")
    told.http_status = error.status_code
    return _problem(told, _id(request))


async def _on_failure(request: Request, error: Exception) -> Response:
    log.error(
        "%s %s failed (request %s)",
        request.method,
        request.url.path,
        _id(request),
        exc_info=error,
    )
    failure = OutboardError("the controller failed", "its log says more")
    return _problem(failure, _id(request))
