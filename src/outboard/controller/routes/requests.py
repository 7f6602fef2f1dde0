"""Requests and sessions: what people and services do with a pool.

SPDX-License-Identifier: Apache-2.0
"""

# No `from __future__ import annotations`: FastAPI reads the annotations here.
import time
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from outboard.controller import views
from outboard.controller.actor import Actor
from outboard.controller.bodies import RenewBody, RequestBody, ResizeBody, TakeOverBody
from outboard.controller.parts import Here, User
from outboard.controller.past import explain_granted
from outboard.errors import Forbidden, PoolBusy, WaitedTooLong
from outboard.ledger import allocations, requests, subjects
from outboard.ledger.grants import Lost, granted_of
from outboard.ledger.requests import Ask
from outboard.ledger.transaction import Transaction
from outboard.model.token import hash_secret
from outboard.moments import iso
from outboard.scheduler.explanation import Explanation, explain_wait
from outboard.units import format_duration

LONGEST_HOLD_S = 25.0
# Who uses a token that ends so soon is told with each grant.
_SOON_US = 14 * 86_400 * 1_000_000

RequestId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
SessionId = Annotated[str, Path(pattern="^s-[0-9a-f]{8,32}$")]
Hold = Annotated[float, Query(ge=0, le=60)]
Reason = Annotated[str, Query(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


# Whom a service holds GPUs for that all users of its machine share.
_ROOT = "root"

request_routes = APIRouter(tags=["requests"])


@request_routes.post("/v1/requests", status_code=201)
async def submit(here: Here, body: RequestBody, actor: User, response: Response) -> dict[str, Any]:
    """Ask for GPUs. 201 with the grant, or 202 while it waits: then ask for the request.

    Repeating it with the same id is safe, and gets the same grant.
    """
    request = body.request(_user_of(actor, body.user), actor.host)
    if actor.host is not None:
        policy = await here.service.read(lambda tx: subjects.host_policy(tx, actor.host or ""))
        _require_policy(actor, policy, by_service=bool(body.holder_sha256))
        if actor.has("service"):
            # Whom it vouches for needs no account before; one that was disabled stays so.
            await here.service.write(lambda tx: subjects.ensure_user(tx, request.user))
    if body.dry_run:
        response.status_code = 200
        return await here.service.rehearse(request)
    hold_s = LONGEST_HOLD_S if body.hold_s is None else min(body.hold_s, LONGEST_HOLD_S)
    if body.wait_s is not None:
        hold_s = min(hold_s, body.wait_s)
    found = await here.service.request(request, hold_s, here.answers.of_grant)
    waited = body.wait_s is not None and body.wait_s <= hold_s
    if isinstance(found, Ask) and found.state in ("waiting", "timed_out") and waited:
        reason = here.answers.reason(request.id, found)
        if not await _give_up(here, request.id, reason):
            # It was granted, or given up by the keeper, since it was looked at.
            found = await here.service.follow(request.id, 0.0, actor.owns, here.answers.of_grant)
        if isinstance(found, Ask) and found.state in ("waiting", "timed_out"):
            raise _too_late(body.wait_s or 0.0, reason)
    return _told(here, found, actor, response)


@request_routes.get("/v1/requests/{id}")
async def follow(
    here: Here,
    id: RequestId,  # noqa: A002 -- the path's name
    actor: User,
    response: Response,
    hold_s: Hold = 0.0,
) -> dict[str, Any]:
    """How a request stands, waiting for its grant at most `hold_s`: its client's sign."""
    hold_s = min(hold_s, LONGEST_HOLD_S)
    found = await here.service.follow(id, hold_s, actor.sees, here.answers.of_grant)
    return _told(here, found, actor, response)


@request_routes.delete("/v1/requests/{id}")
async def cancel(here: Here, id: RequestId, actor: User) -> dict[str, Any]:  # noqa: A002
    """Stop waiting. What was granted already is not ended by this."""
    ask = await here.service.read(lambda tx: requests.find_request(tx, id))
    actor.require_sight(actor.owns(ask.request.user, ask.request.host), f"request {id}")
    done = await here.service.write(
        lambda tx: requests.finish(tx, id, "cancelled", f"by {actor.name}")
    )
    return {"request": id, "cancelled": done}


@request_routes.get("/v1/requests/{id}/explain")
async def why(here: Here, id: RequestId, actor: User) -> dict[str, Any]:  # noqa: A002
    """Why a request waits, or was placed as it was."""
    return await _explained(here, id, actor)


@request_routes.get("/v1/queue")
async def queue(here: Here, actor: User) -> dict[str, Any]:
    """Who waits for what, next first; others' programs are not shown to users."""
    asks = await here.service.read(requests.waiting_requests)
    return {"waiting": here.answers.queue(asks, actor)}


async def _explained(here: Here, request_id: str, actor: Actor) -> dict[str, Any]:
    states = here.service.image.states()

    def read(tx: Transaction) -> tuple[Ask, Explanation]:
        ask = requests.find_request(tx, request_id)
        actor.require_sight(actor.sees(ask.request.user, ask.request.host), f"request {request_id}")
        if ask.state == "waiting":
            standing = here.service.standings.get(request_id)
            return ask, explain_wait(standing, ask.request, states, tx.now_us)
        if ask.state == "granted":
            made = granted_of(tx, request_id)
            return ask, explain_granted(tx, here.service.terms, made)
        return ask, Explanation()

    ask, found = await here.service.read(read)
    return {"request": request_id, "state": ask.state, "reason": ask.reason, **asdict(found)}


def _told(
    here: Here, found: dict[str, Any] | Ask, actor: Actor, response: Response
) -> dict[str, Any]:
    if not isinstance(found, Ask):
        ends_us = actor.token.expires_us
        soon = bool(actor.user) and ends_us is not None and ends_us < time.time() * 1e6 + _SOON_US
        return {**found, "token_expires": iso(ends_us)} if soon else found
    response.status_code = 202 if found.state == "waiting" else 200
    return here.answers.asked(found)


session_routes = APIRouter(prefix="/v1/sessions", tags=["sessions"])


@session_routes.get("")
async def listed(here: Here, actor: User) -> dict[str, Any]:
    """The sessions that have not ended: one's own, or all for those who may read."""
    whose = None if actor.sees_all else actor.user
    found = await here.service.read(lambda tx: views.list_sessions(tx, whose, here.answers.held))
    return {"sessions": found}


@session_routes.get("/{id}")
async def one(here: Here, id: SessionId, actor: User) -> dict[str, Any]:  # noqa: A002
    """One session, also after its end."""
    row = await here.service.read(lambda tx: views.find_session(tx, id))
    actor.require_sight(actor.sees(str(row.user_name), row.host), f"session {id}")
    found = await here.service.read(lambda tx: views.list_sessions(tx, None, here.answers.held, id))
    return found[0]


@session_routes.get("/{id}/explain")
async def why_there(here: Here, id: SessionId, actor: User) -> dict[str, Any]:  # noqa: A002
    """Why a session has the devices that it was granted."""
    row = await here.service.read(lambda tx: views.find_session(tx, id))
    actor.require_sight(actor.sees(str(row.user_name), row.host), f"session {id}")
    return await _explained(here, str(row.request), actor)


@session_routes.post("/{id}/renew")
async def renew(
    here: Here,
    id: SessionId,  # noqa: A002
    actor: User,
    body: RenewBody | None = None,
) -> dict[str, Any]:
    """The holder lives: the lease goes on, with a fresh grant."""
    row = await _own(here, id, actor)
    secret = "" if body is None else body.holder
    await here.service.glance(
        lambda tx: allocations.check_holder(tx, str(row.allocation), hash_secret(secret))
    )
    answer = await here.answers.session(row)
    here.service.keeper.note_renewal(str(row.allocation))
    return answer


@session_routes.post("/{id}/takeover")
async def take_over(
    here: Here,
    id: SessionId,  # noqa: A002
    body: TakeOverBody,
    actor: User,
) -> dict[str, Any]:
    """A new holder with the old one's secret: the epoch rises, the old one is fenced off."""
    row = await _own(here, id, actor)
    before = hash_secret(body.holder) if body.holder else ""
    made = await here.service.write(
        lambda tx: allocations.take_over(
            tx, str(row.allocation), body.holder_sha256, before, here.service.terms
        )
    )
    return await here.answers.granted(made)


@session_routes.post("/{id}/resize")
async def resize(here: Here, id: SessionId, body: ResizeBody, actor: User) -> dict[str, Any]:  # noqa: A002
    """Another share of each device; all of it or nothing."""
    row = await _own(here, id, actor)
    made = await here.service.write(
        lambda tx: allocations.resize(tx, str(row.allocation), body.share_bytes)
    )
    if isinstance(made, Lost):
        raise PoolBusy(made.reason, "ask for less, or wait until others have ended")
    return await here.answers.granted(made)


@session_routes.delete("/{id}")
async def end(
    here: Here,
    id: SessionId,  # noqa: A002
    actor: User,
    response: Response,
    reason: Reason = "released",
    hold_s: Hold = LONGEST_HOLD_S,
) -> dict[str, Any]:
    """End a session; 200 once its memory is free for others, 202 while its workers end."""
    hold_s = min(hold_s, LONGEST_HOLD_S)
    state = await here.service.end(id, actor.owns, actor.name, reason, hold_s)
    response.status_code = 200 if state == "ended" else 202
    return {"session": id, "state": state}


async def _own(here: Here, session: str, actor: Actor) -> Any:
    row = await here.service.glance(lambda tx: views.find_session(tx, session))
    actor.require_sight(actor.owns(str(row.user_name), row.host), f"session {session}")
    here.answers.require_active(row)
    return row


async def _give_up(here: Here, request_id: str, reason: str) -> bool:
    return await here.service.write(lambda tx: requests.finish(tx, request_id, "timed_out", reason))


def _require_policy(actor: Actor, policy: str, *, by_service: bool) -> None:
    """What an administrator has said of the client machine that asks. Its token is read by root
    alone, who is its service; `outboard run` of root names no holder and is told."""
    if policy == "blocked":
        raise Forbidden("this machine may not use the pool", "ask the administrator")
    if policy == "service-only" and not (by_service and actor.has("service")):
        raise Forbidden(
            "on this machine GPUs are had by its service alone", "see it: outboard status"
        )


def _too_late(wait_s: float, reason: str) -> PoolBusy | WaitedTooLong:
    if wait_s:
        return WaitedTooLong(
            f"no GPU within {format_duration(wait_s)}: {reason}",
            "wait longer (--wait 1h), ask for less (-p 0.25), or see who has them:"
            " outboard sessions",
        )
    return PoolBusy(
        f"the pool is busy: {reason}",
        "wait for it (leave --no-wait out), ask for less (-p 0.25), or see who has it:"
        " outboard sessions",
    )


def _user_of(actor: Actor, named: str) -> str:
    """Whom a request is for: oneself, or whom a client host vouches for; its service, for root."""
    if actor.user:
        if named and named != actor.user and not actor.has("admin"):
            raise Forbidden(f"you are {actor.user}, and cannot ask for {named}")
        return named or actor.user
    if actor.host and (named or actor.has("service")):
        return named or _ROOT
    raise Forbidden("this token names no user", "sign in: outboard login URL")
