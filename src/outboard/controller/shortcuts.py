"""The calls that make up nearly all traffic, answered without FastAPI's routing.

SPDX-License-Identifier: Apache-2.0

A grant, its release and an agent's report come hundreds of times a second, well-formed nearly
always; to match, inject and validate them FastAPI takes longer than the ledger to answer. Here they
are only recognised: what they do is the routes' own functions, and whatever is not exactly as
expected goes FastAPI's way, which documents these routes and says what is wrong with a call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.types import Message, Receive, Scope

from outboard.controller.actor import Actor
from outboard.controller.bodies import RequestBody
from outboard.controller.node_routes import require_own
from outboard.controller.parts import Parts
from outboard.controller.routes.requests import end, submit
from outboard.ledger.tokens import Token

Report = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, object]]]

_SESSION = re.compile(r"/v1/sessions/(s-[0-9a-f]{8,32})")
_REPORT = re.compile(r"/v1/nodes/([^/]+)/report")
_HOLD = re.compile(rb"hold_s=([0-9]{1,2}(?:\.[0-9]{1,6})?)")
_LONGEST_HOLD_S = 60.0


@dataclass(frozen=True, slots=True)
class Route:
    """What the metrics call it, as Starlette's routes do."""

    path: str


class Shortcuts:
    """One application's. `report` takes an agent's, where agents are served."""

    def __init__(self, parts: Parts, report: Report | None) -> None:
        self._parts, self._report = parts, report

    async def answer(
        self, scope: Scope, receive: Receive, token: Token
    ) -> tuple[Response | None, Receive]:
        """The answer, or None with what is still to be received; sets the scope's route."""
        method, path = scope["method"], scope["path"]
        if method == "POST" and path == "/v1/requests" and not scope["query_string"]:
            body, receive = await _body(scope, receive)
            return await self._submit(scope, body, token), receive
        if method == "DELETE" and (found := _SESSION.fullmatch(path)):
            return await self._end(scope, found[1], token), receive
        if method == "POST" and self._report is not None and (found := _REPORT.fullmatch(path)):
            body, receive = await _body(scope, receive)
            return await self._take_report(scope, found[1], body, token, self._report), receive
        return None, receive

    async def _submit(self, scope: Scope, body: bytes | None, token: Token) -> Response | None:
        try:
            asked = RequestBody.model_validate_json(body or b"")
        except ValidationError:
            return None
        scope["route"] = Route("/v1/requests")
        response = Response(status_code=201)
        actor = Actor(token)
        actor.require("use")
        told = await submit(self._parts, asked, actor, response)
        return JSONResponse(told, response.status_code)

    async def _end(self, scope: Scope, session: str, token: Token) -> Response | None:
        hold = _HOLD.fullmatch(scope["query_string"])
        if hold is None or float(hold[1]) > _LONGEST_HOLD_S:
            return None
        scope["route"] = Route("/v1/sessions/{id}")
        response = Response(status_code=200)
        actor = Actor(token)
        actor.require("use")
        told = await end(self._parts, session, actor, response, hold_s=float(hold[1]))
        return JSONResponse(told, response.status_code)

    async def _take_report(
        self, scope: Scope, node: str, body: bytes | None, token: Token, report: Report
    ) -> Response | None:
        try:
            told = json.loads(body or b"")
        except ValueError:
            return None
        if not isinstance(told, dict):
            return None
        scope["route"] = Route("/v1/nodes/{name}/report")
        require_own(node, token)
        return JSONResponse(await report(node, told))


async def _body(scope: Scope, receive: Receive) -> tuple[bytes | None, Receive]:
    """A JSON body, and a way to receive it again; None where it is not said to be JSON."""
    if (b"content-type", b"application/json") not in scope["headers"]:
        return None, receive
    messages: list[Message] = []
    while not messages or messages[-1].get("more_body", False):
        messages.append(await receive())
    unread = iter(messages)

    async def again() -> Message:
        return next(unread, None) or await receive()

    return b"".join(message.get("body", b"") for message in messages), again
