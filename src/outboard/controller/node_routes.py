"""The routes that machines call: the authority, enrolment, agents' reports and orders.

SPDX-License-Identifier: Apache-2.0
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of these closures.
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request
from starlette.concurrency import run_in_threadpool

from outboard.controller.fleet import Fleet
from outboard.errors import Forbidden
from outboard.ledger.enrolment import NODE_SCOPE
from outboard.ledger.tokens import Token

Record = Annotated[dict[str, Any], Body()]
Authenticate = Callable[[Request], Coroutine[Any, Any, Token]]


def public_routes(fleet: Fleet, authority_pem: str) -> APIRouter:
    """What needs no token in the head: a join token is in the body, the authority is no secret."""
    router = APIRouter()

    @router.get("/v1/ca")
    async def authority() -> dict[str, str]:
        """The certificate authority of this pool, PEM."""
        return {"authority": authority_pem}

    @router.post("/v1/enrol", status_code=201)
    async def enrol(body: Record) -> dict[str, object]:
        """A machine joins the pool by a join token."""
        return await run_in_threadpool(fleet.enrol, body)

    return router


def require_own(name: str, token: Token) -> None:
    """Raises `Forbidden` unless the token is that node's."""
    if NODE_SCOPE not in token.scopes or (token.subject_kind, token.subject) != ("node", name):
        raise Forbidden(f"this token is not of the node {name}", "outboard join TOKEN")


def agent_routes(fleet: Fleet, authenticate: Authenticate) -> APIRouter:
    """What only a node's own token may call."""
    router = APIRouter(prefix="/v1/nodes/{name}")

    async def own_node(name: str, token: Annotated[Token, Depends(authenticate)]) -> str:
        require_own(name, token)
        return name

    node_of_token = Annotated[str, Depends(own_node)]

    @router.post("/report")
    async def report(node: node_of_token, body: Record) -> dict[str, object]:
        """An agent says all that is on its node."""
        return await fleet.report(node, body)

    @router.post("/orders")
    async def orders(node: node_of_token, body: Record) -> dict[str, object]:
        """An agent waits for what it is to end."""
        known = body.get("known")
        names = frozenset(str(one) for one in known) if isinstance(known, list) else frozenset()
        wait_s = body.get("wait_s")
        wait = float(wait_s) if isinstance(wait_s, int | float) else 0.0
        return await fleet.wait(node, names, wait)

    return router
