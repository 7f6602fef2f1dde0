"""Users, groups, hosts, limits, tokens: what administrators decide, each decision audited.

SPDX-License-Identifier: Apache-2.0
"""

# No `from __future__ import annotations`: FastAPI reads the annotations here.
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path

from outboard.controller import views
from outboard.controller.actor import Actor
from outboard.controller.bodies import HostBody, LimitBody, TokenBody, UserBody
from outboard.controller.parts import AS_READER, Admin, Here, User
from outboard.errors import MalformedRequest
from outboard.ledger import limits, subjects, tokens
from outboard.ledger.requests import SECOND_US
from outboard.ledger.transaction import Transaction
from outboard.moments import iso

UserName = Annotated[str, Path(max_length=128, pattern=r"^[A-Za-z0-9_.@+-]+$")]
HostId = Annotated[str, Path(max_length=128, pattern=r"^[A-Za-z0-9_.:-]+$")]
LimitSubject = Annotated[str, Path(max_length=128, pattern=r"^(\*|[A-Za-z0-9_.@:+-]+)$")]
SubjectKind = Literal["user", "group", "host"]
LimitKind = Literal["gpus", "bytes", "sessions", "session_s", "idle_s", "priority", "pools"]
TokenId = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]


administration_routes = APIRouter(prefix="/v1", tags=["administration"])


async def decide(
    here: Here,
    actor: Actor,
    action: str,
    subject: str,
    work: Callable[[Transaction], Any],
    **detail: Any,
) -> Any:
    """Do it, write down who did, and check tokens anew."""

    def audited(tx: Transaction) -> Any:
        result = work(tx)
        tx.audit(actor.name, action, subject, **detail)
        return result

    result = await here.service.write(audited)
    here.access.forget()
    return result


@administration_routes.get("/whoami")
async def whoami(actor: User) -> dict[str, Any]:
    """Whose token this is, and what it allows until when."""
    token = actor.token
    return {
        "kind": token.subject_kind,
        "name": token.subject,
        "scopes": sorted(token.scopes),
        "token": token.id,
        "expires": iso(token.expires_us),
    }


@administration_routes.get("/users", dependencies=AS_READER)
async def users(here: Here) -> dict[str, Any]:
    """Everyone who may use the pool."""
    return {"users": await here.service.read(views.list_users)}


@administration_routes.put("/users/{name}")
async def put_user(here: Here, name: UserName, body: UserBody, actor: Admin) -> dict[str, Any]:
    """Make a user, or change one; what is left out stays."""
    values = body.model_dump(exclude_none=True, exclude={"groups"})

    def work(tx: Transaction) -> None:
        subjects.ensure_user(tx, name)
        if values:
            subjects.change_user(tx, name, **values)
        if body.groups is not None:
            subjects.set_groups(tx, name, body.groups)

    await decide(here, actor, "user.put", name, work, **body.model_dump(exclude_none=True))
    return {"user": name}


@administration_routes.get("/groups", dependencies=AS_READER)
async def groups(here: Here) -> dict[str, Any]:
    """The groups that users are in."""
    return {"groups": await here.service.read(views.list_groups)}


@administration_routes.get("/hosts", dependencies=AS_READER)
async def hosts(here: Here) -> dict[str, Any]:
    """The client machines that have joined."""
    return {"hosts": await here.service.read(views.list_hosts)}


@administration_routes.put("/hosts/{id}")
async def put_host(here: Here, id: HostId, body: HostBody, actor: Admin) -> dict[str, Any]:  # noqa: A002
    """What may be asked for from a client machine."""
    await decide(
        here,
        actor,
        "host.put",
        id,
        lambda tx: subjects.change_host(tx, id, policy=body.policy),
        policy=body.policy,
    )
    return {"host": id, "policy": body.policy}


@administration_routes.get("/limits", dependencies=AS_READER)
async def listed(here: Here) -> dict[str, Any]:
    """Every limit that was set; `*` is the default of its kind."""
    return {"limits": await here.service.read(views.list_limits)}


@administration_routes.put("/limits/{subject_kind}/{subject}/{kind}")
async def put_limit(
    here: Here,
    subject_kind: SubjectKind,
    subject: LimitSubject,
    kind: LimitKind,
    body: LimitBody,
    actor: Admin,
) -> dict[str, Any]:
    """Set a limit. It ends nothing that runs."""
    if (body.value is None) == (not body.names):
        raise MalformedRequest("a limit is a number or a list of names")
    named = (subject_kind, subject)
    await decide(
        here,
        actor,
        "limit.set",
        f"{subject_kind}/{subject}/{kind}",
        lambda tx: limits.set_limit(tx, named, kind, body.value, " ".join(body.names)),
        value=body.value,
        names=body.names,
    )
    return {"subject_kind": subject_kind, "subject": subject, "kind": kind, "value": body.value}


@administration_routes.delete("/limits/{subject_kind}/{subject}/{kind}")
async def delete_limit(
    here: Here, subject_kind: SubjectKind, subject: LimitSubject, kind: LimitKind, actor: Admin
) -> dict[str, Any]:
    """Take a limit away; its kind's default counts again."""
    named = (subject_kind, subject)
    await decide(
        here,
        actor,
        "limit.delete",
        f"{subject_kind}/{subject}/{kind}",
        lambda tx: limits.set_limit(tx, named, kind, None),
    )
    return {"subject_kind": subject_kind, "subject": subject, "kind": kind, "value": None}


@administration_routes.get("/tokens")
async def list_tokens(here: Here, actor: User) -> dict[str, Any]:
    """One's own tokens, or all of them for an administrator; never their secrets."""
    token = actor.token
    whose = None if actor.has("admin") else (token.subject_kind, token.subject)
    return {"tokens": await here.service.read(lambda tx: tokens.list_tokens(tx, whose))}


@administration_routes.post("/tokens", status_code=201)
async def create(here: Here, body: TokenBody, actor: Admin) -> dict[str, Any]:
    """A new token; its text is shown this once."""

    def work(tx: Transaction) -> str:
        if body.subject_kind == "user":
            subjects.ensure_user(tx, body.subject)
        return tokens.create_token(
            tx,
            (body.subject_kind, body.subject),
            body.scopes,
            lifetime_us=None if body.lifetime_s is None else body.lifetime_s * SECOND_US,
            uses=body.uses,
            note=body.note,
            ca_hash=here.ca_mark,
        )

    subject = f"{body.subject_kind}:{body.subject}"
    text = await decide(here, actor, "token.create", subject, work, scopes=sorted(body.scopes))
    return {"token": text, "id": text.split("_")[1]}


@administration_routes.delete("/tokens/{id}")
async def revoke(here: Here, id: TokenId, actor: User) -> dict[str, Any]:  # noqa: A002
    """A token is worth nothing from here on: one's own, or any for an administrator."""
    token = actor.token
    if not actor.has("admin"):
        own = await here.service.read(
            lambda tx: tokens.list_tokens(tx, (token.subject_kind, token.subject))
        )
        if id not in {one["id"] for one in own}:
            actor.require("admin")
    await decide(here, actor, "token.revoke", id, lambda tx: tokens.revoke_token(tx, id))
    return {"token": id, "revoked": True}
