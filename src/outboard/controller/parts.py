"""What the routes work with, and whom they work for, as FastAPI's dependencies.

SPDX-License-Identifier: Apache-2.0
"""

# No `from __future__ import annotations`: FastAPI reads these annotations.
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from outboard.controller.access import Access
from outboard.controller.actor import Actor
from outboard.controller.answers import Answers
from outboard.controller.metrics import Metrics
from outboard.controller.service import Service


@dataclass(frozen=True, slots=True)
class Parts:
    """One controller's. `ca_mark` names its authority in the tokens that it makes."""

    service: Service
    access: Access
    answers: Answers
    metrics: Metrics
    ca_mark: str


# A coroutine: what is not would be run in a thread, for every call.
async def _parts(request: Request) -> Parts:
    parts = request.app.state.parts
    assert isinstance(parts, Parts)
    return parts


def needs(scope: str) -> Callable[[Request], Coroutine[Any, Any, Actor]]:
    """A dependency that gives the caller, if the caller's token has the scope."""

    async def actor(request: Request) -> Actor:
        found = Actor(await (await _parts(request)).access.authenticate(request))
        found.require(scope)
        return found

    return actor


Here = Annotated[Parts, Depends(_parts)]
User = Annotated[Actor, Depends(needs("use"))]
Reader = Annotated[Actor, Depends(needs("read"))]
Admin = Annotated[Actor, Depends(needs("admin"))]
AS_READER = [Depends(needs("read"))]
AS_USER = [Depends(needs("use"))]
AS_ADMIN = [Depends(needs("admin"))]
