"""Accounts, audit log and the stream of changes.

SPDX-License-Identifier: Apache-2.0
"""

# No `from __future__ import annotations`: FastAPI reads the annotations here.
import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from outboard.controller import views
from outboard.controller.parts import AS_ADMIN, Here, User
from outboard.errors import DatabaseUnavailable, Forbidden, OutboardError
from outboard.ledger import accounting
from outboard.ledger.changes import Change, changes_after
from outboard.ledger.transaction import Transaction
from outboard.model.account import (
    KEYS,
    USED_KEYS,
    Held,
    Used,
    account_json,
    check_keys,
    interval_us,
)

_KEEP_ALIVE_S = 15.0
# PostgreSQL may show a lower number after a higher one: who comes back hears these again.
_REWIND = 256

By = Annotated[str, Query(max_length=100, pattern=r"^[a-z]+(,[a-z]+)*$")]


record_routes = APIRouter(prefix="/v1", tags=["records"])


@record_routes.get("/usage")
async def usage(
    here: Here,
    actor: User,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    by: By = "user",
) -> dict[str, Any]:
    """What was held in an interval (the last day), exactly, and what was used, as workers count
    it; grouped by some of user, device, node, session, host, day. Grouped also by uid or process it
    is of what was used alone: what is held is a session's. Users see their own."""
    keys = by.split(",")
    check_keys(keys, USED_KEYS)
    of_used_alone = bool(set(keys) - set(KEYS))
    if not actor.sees_all and "user" not in keys:
        keys = ["user", *keys]

    def read(tx: Transaction) -> tuple[int, int, list[Held], list[Used]]:
        first_us, last_us = interval_us(since, until, tx.now_us)
        lines = [] if of_used_alone else accounting.held(tx, first_us, last_us, keys)
        return first_us, last_us, lines, accounting.used(tx, first_us, last_us, keys)

    first_us, last_us, lines, used = await here.service.read(read)
    if not actor.sees_all:
        where = keys.index("user")
        lines = [line for line in lines if line.keys[where] == actor.user]
        used = [line for line in used if line.keys[where] == actor.user]
    return account_json(first_us, last_us, keys, lines, used)


@record_routes.get("/usage/processes")
async def processes(
    here: Here, actor: User, since: dt.datetime | None = None, until: dt.datetime | None = None
) -> dict[str, Any]:
    """What workers counted in each process; null is not known."""

    def read(tx: Transaction) -> list[dict[str, object]]:
        first_us, last_us = interval_us(since, until, tx.now_us)
        return accounting.processes(tx, first_us, last_us)

    found = await here.service.read(read)
    if not actor.sees_all:
        found = [one for one in found if one["user_name"] == actor.user]
    return {"processes": found}


@record_routes.get("/audit", dependencies=AS_ADMIN)
async def audit(
    here: Here,
    after: Annotated[int, Query(ge=0, lt=1 << 62)] = 0,
    most: Annotated[int, Query(gt=0, le=1000)] = 200,
) -> dict[str, Any]:
    """Who did what, oldest first, after a line's number."""
    return {"audit": await here.service.read(lambda tx: views.read_audit(tx, after, most))}


@record_routes.get("/events", response_class=StreamingResponse)
async def events(
    here: Here,
    actor: User,
    request: Request,
    last_event_id: Annotated[int | None, Header(ge=0, lt=1 << 62)] = None,
) -> StreamingResponse:
    """Server-sent events: what changed, by kind and name. Read the thing itself for how.

    `Last-Event-ID` goes on where a stream broke; some events may come twice.
    """
    if not actor.sees_all:
        raise Forbidden(
            "the stream of changes needs a token of scope read",
            "ask for your request instead: GET /v1/requests/ID?hold_s=25",
        )
    return StreamingResponse(
        _stream(here, request, last_event_id),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store"},
    )


async def _stream(here: Here, request: Request, after: int | None) -> AsyncIterator[str]:
    queue = here.service.listen()
    try:
        yield ": changes of this pool\n\n"
        if after is not None:
            start = max(0, after - _REWIND)
            for change in await here.service.read(lambda tx: changes_after(tx, start)):
                yield _event(change)
        while True:
            try:
                async with asyncio.timeout(_KEEP_ALIVE_S):
                    heard = await queue.get()
                said = "" if heard is None else _event(heard)
            except TimeoutError:
                said = ": still here\n\n"
            if not said or not await _holds(here, request):
                return
            yield said
    finally:
        here.service.unlisten(queue)


async def _holds(here: Here, request: Request) -> bool:
    """Whether the caller's token is still good, as far as the ledger can be read."""
    try:
        await here.access.authenticate(request)
    except DatabaseUnavailable:
        return True
    except OutboardError:
        return False
    return True


def _event(change: Change) -> str:
    data = json.dumps({"subject": change.subject})
    return f"id: {change.id}\nevent: {change.kind}\ndata: {data}\n\n"
