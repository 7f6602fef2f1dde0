"""Nodes and devices: what the pool has, and what administrators open and close.

SPDX-License-Identifier: Apache-2.0
"""

# No `from __future__ import annotations`: FastAPI reads the annotations here.
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse, Response

from outboard import __version__
from outboard.controller import views
from outboard.controller.actor import Actor
from outboard.controller.bodies import DrainBody, NodeBody, ReasonBody
from outboard.controller.figures import FIGURES
from outboard.controller.parts import AS_USER, Admin, Here, Parts, User
from outboard.ledger import enrolment, nodes
from outboard.ledger.requests import SECOND_US
from outboard.ledger.transaction import Transaction

NodeName = Annotated[str, Path(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f/]+$")]
Index = Annotated[int, Path(ge=0, le=255)]


pool_routes = APIRouter(prefix="/v1", tags=["pool"])


@pool_routes.get("/status")
async def status(here: Here, actor: User) -> dict[str, Any]:
    """What this pool is, in short."""
    found = await here.service.read(views.counts)
    return {"release": __version__, "embedded": False, "you": actor.name, **found}


@pool_routes.get("/devices", response_model=dict[str, Any])
async def devices(here: Here, actor: User) -> Response:
    """Every GPU, with what is granted of it. Sessions of others have no names for users."""
    # Told as it is: what FastAPI does with what a route returns costs ten times as much.
    return JSONResponse(await here.service.run(lambda: _devices(here, actor)))


def _devices(here: Parts, actor: Actor) -> dict[str, Any]:
    database = here.service.database
    found = database.read(views.list_devices)
    for device in found:
        known = here.metrics.figures(device["node"], device["index"])
        device.update({name: known.get(name) for name in FIGURES})
    if not actor.sees_all:
        own = database.read(lambda tx: views.list_sessions(tx, actor.user, here.answers.held))
        names = {one["id"] for one in own}
        for device in found:
            device["sessions"] = [name for name in device["sessions"] if name in names]
    return {"devices": found}


@pool_routes.get("/nodes", dependencies=AS_USER)
async def listed(here: Here) -> dict[str, Any]:
    """Every server."""
    return {"nodes": await here.service.read(views.list_nodes)}


@pool_routes.post("/nodes/{name}/drain")
async def drain(here: Here, name: NodeName, body: DrainBody, actor: Admin) -> dict[str, Any]:
    """Grant nothing new there; end what is left at the deadline."""
    await _set_state(here, actor, name, "draining", body.reason, body.deadline_s)
    return {"node": name, "state": "draining"}


@pool_routes.post("/nodes/{name}/cordon")
async def cordon(here: Here, name: NodeName, body: ReasonBody, actor: Admin) -> dict[str, Any]:
    """Grant nothing new there; end nothing."""
    await _set_state(here, actor, name, "cordoned", body.reason, None)
    return {"node": name, "state": "cordoned"}


@pool_routes.post("/nodes/{name}/resume")
async def resume(here: Here, name: NodeName, actor: Admin) -> dict[str, Any]:
    """Grant there again."""
    await _set_state(here, actor, name, "ready", "", None)
    return {"node": name, "state": "ready"}


@pool_routes.put("/nodes/{name}")
async def describe(here: Here, name: NodeName, body: NodeBody, actor: Admin) -> dict[str, Any]:
    """Put a server into a pool, label it; what is left out stays."""

    def work(tx: Transaction) -> dict[str, Any]:
        tx.audit(actor.name, "node.put", name, **body.model_dump(exclude_none=True))
        return nodes.describe_node(tx, name, body.pool, body.labels)

    return {"node": name, **await here.service.write(work)}


@pool_routes.delete("/nodes/{name}")
async def remove(here: Here, name: NodeName, actor: Admin) -> dict[str, Any]:
    """Take a server without sessions out of the pool."""

    def work(tx: Transaction) -> None:
        nodes.remove_node(tx, name)
        tx.audit(actor.name, "node.remove", name)

    await here.service.write(work)
    return {"node": name, "state": "removed"}


@pool_routes.get("/controllers", dependencies=AS_USER)
async def controllers(here: Here) -> dict[str, Any]:
    """The pool's controllers, this one among them."""
    return {"controllers": await here.service.read(views.list_controllers)}


@pool_routes.delete("/controllers/{name}")
async def remove_controller(here: Here, name: NodeName, actor: Admin) -> dict[str, Any]:
    """Agents believe what it signs no more. It is to be stopped first: it is not asked."""

    def work(tx: Transaction) -> None:
        enrolment.remove_controller(tx, name)
        tx.audit(actor.name, "controller.remove", name)

    await here.service.write(work)
    return {"controller": name, "state": "removed"}


@pool_routes.post("/nodes/{name}/devices/{index}/cordon")
async def cordon_device(
    here: Here, name: NodeName, index: Index, body: ReasonBody, actor: Admin
) -> dict[str, Any]:
    """Grant nothing new of one GPU."""
    await _set_device_state(here, actor, name, index, "cordoned", body.reason)
    return {"node": name, "index": index, "state": "cordoned"}


@pool_routes.post("/nodes/{name}/devices/{index}/resume")
async def resume_device(here: Here, name: NodeName, index: Index, actor: Admin) -> dict[str, Any]:
    """Grant of it again."""
    await _set_device_state(here, actor, name, index, "ready", "")
    return {"node": name, "index": index, "state": "ready"}


async def _set_state(
    here: Here, actor: Actor, name: str, state: str, reason: str, deadline_s: float | None
) -> None:
    def work(tx: Transaction) -> None:
        deadline_us = None if deadline_s is None else tx.now_us + int(deadline_s * SECOND_US)
        nodes.set_node_state(tx, name, state, reason, deadline_us)
        tx.audit(actor.name, f"node.{state}", name, reason=reason)

    await here.service.write(work)


async def _set_device_state(
    here: Here, actor: Actor, name: str, index: int, state: str, reason: str
) -> None:
    def work(tx: Transaction) -> None:
        nodes.set_device_state(tx, name, index, state, reason)
        tx.audit(actor.name, f"device.{state}", f"{name}/{index}", reason=reason)

    await here.service.write(work)
