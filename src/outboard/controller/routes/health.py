"""Whether the controller lives and can work, and its metrics.

SPDX-License-Identifier: Apache-2.0
"""

# No `from __future__ import annotations`: FastAPI reads the annotations here.
from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from outboard.controller.parts import AS_READER, Here

health_routes = APIRouter(tags=["health"])


@health_routes.get("/healthz")
async def health() -> dict[str, bool]:
    """The process answers."""
    return {"ok": True}


@health_routes.get("/readyz")
async def ready(here: Here) -> dict[str, bool]:
    """The ledger answers, too; else 503 with the reason."""
    await here.service.read(lambda tx: tx.now_us)
    return {"ok": True}


@health_routes.get("/metrics", response_class=PlainTextResponse, dependencies=AS_READER)
async def exposition(here: Here) -> Response:
    """Prometheus metrics; needs a token of scope read."""
    return Response(here.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
