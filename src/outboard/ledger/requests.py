"""Requests: submitted once however often they are sent, granted at most once, forgotten in time.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from outboard.errors import Forbidden, LimitReached, NotFound
from outboard.ledger import limits
from outboard.ledger.grants import (
    DESCRIPTION,
    Described,
    Granted,
    Lost,
    add_granted,
    granted_of,
    insert_grants,
    keys_of,
)
from outboard.ledger.nodes import NEWEST_BASE
from outboard.ledger.rows import Row, any_of, insert, locked, locking
from outboard.ledger.schema import (
    allocations,
    devices,
    leases,
    memberships,
    nodes,
    requests,
    sessions,
    users,
)
from outboard.ledger.statements import Answer, Statement
from outboard.ledger.subjects import groups_of
from outboard.ledger.transaction import Transaction
from outboard.model.filters import Filter
from outboard.model.request import GrantedDevice, Request, Share

SECOND_US = 1_000_000

Seen = Mapping[str, object]
NOTHING_SEEN: Seen = {}


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things hold. `silent_us` None takes every node for alive."""

    lease_us: int = 180 * SECOND_US
    pickup_us: int = 30 * SECOND_US
    waiting_us: int = 30 * SECOND_US
    silent_us: int | None = 30 * SECOND_US


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as the ledger has it."""

    request: Request
    state: str
    reason: str
    created_us: int
    seen_us: int
    wait_until_us: int | None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a grant judges by: the counters, locked, and then the devices, locked too."""

    counters: Answer
    devices: Answer


@dataclass(frozen=True, slots=True)
class _Applicant:
    """Whoever asks, as far as limits go by it."""

    groups: Sequence[str]
    subjects: Sequence[limits.Subject]
    in_force: Sequence[limits.Limit]
    wanted: _Wanted | None


def submit(tx: Transaction, request: Request) -> Ask:
    """The request exists from here on; one that was sent before is returned as it stands.

    Raises `Forbidden` for a disabled user or somebody else's id, `LimitReached` for what the
    limits of priority and pools, or limits of use on an idle pool, would never allow.
    """
    ask, applicant = _enter(tx, request)
    if applicant is not None:
        _insert(tx, request)
    return ask


def submit_for(
    tx: Transaction,
    request: Request,
    chosen: Sequence[GrantedDevice],
    terms: Terms,
    seen: Seen = NOTHING_SEEN,
) -> Granted | Ask | Lost:
    """Submit a request and grant it these devices, if there are any and it is waiting.

    Where a limit is in the way it waits until its user has ended something. Raises as `submit`.
    """
    ask, applicant = _enter(tx, request, chosen)
    outcome: Granted | Ask | Lost = ask
    if ask.state == "waiting" and chosen:
        try:
            if applicant is None:
                return grant(tx, request.id, chosen, terms, seen)
            outcome = _grant(tx, request, applicant, chosen, terms, seen, new=True)
        except LimitReached:
            pass
    if applicant is not None and not isinstance(outcome, Granted):
        _insert(tx, request)
    return outcome


def _insert(tx: Transaction, request: Request, **more: object) -> None:
    """The new request exists from here on: nobody else can have made it since, there being one
    writer."""
    insert(tx, requests, [{**_row(request, tx.now_us), **more}])
    tx.changed("request", request.id)


def _enter(
    tx: Transaction, request: Request, chosen: Sequence[GrantedDevice] = ()
) -> tuple[Ask, _Applicant | None]:
    """The request and, if it is new and still to be inserted, who asks."""
    applicant = _admitted(tx, request, chosen)
    if applicant is not None:
        until_us = _wait_until(request, tx.now_us)
        return Ask(request, "waiting", "", tx.now_us, tx.now_us, until_us), applicant
    before = _find(tx, request.id)
    assert before is not None
    if before.request.user != request.user:
        raise Forbidden("this request's id is somebody else's", "make a new id")
    return before, None


def exists(tx: Transaction, identity: str) -> bool:
    """Whether this request was submitted before."""
    return _find(tx, identity) is not None


def find_request(tx: Transaction, identity: str) -> Ask:
    """The request; raises `NotFound`."""
    found = _find(tx, identity)
    if found is None:
        raise NotFound(f"there is no request {identity}", "see who waits: outboard queue")
    return found


def waiting_requests(tx: Transaction, among: Sequence[str] | None = None) -> list[Ask]:
    """Everything that waits, or what does of some, oldest first."""
    statement = sa.select(requests).where(requests.c.state == "waiting")
    if among is not None:
        found = [str(row.id) for row in tx.rows(_STILL_WAITING, requests=among)]
        if not found:
            return []
        statement = statement.where(requests.c.id.in_(found))
    order = statement.order_by(requests.c.created_us, requests.c.id)
    return [_ask(row) for row in tx.connection.execute(order)]


_STILL_WAITING = Statement(
    sa.select(requests.c.id).where(
        any_of("requests", requests.c.id), requests.c.state == "waiting"
    ),
    "requests",
)


def grant(
    tx: Transaction,
    request_id: str,
    chosen: Sequence[GrantedDevice],
    terms: Terms,
    seen: Seen = NOTHING_SEEN,
) -> Granted | Lost:
    """Grant the chosen devices to a waiting request: completely, or not at all.

    `seen` is what the chooser saw that explains its choice, for the audit log. A request that was
    granted before answers with that grant. Raises `LimitReached` naming the limit, `NotFound` for
    a request that waits no more.
    """
    row = tx.one(_LOCK, request=request_id)
    if row is not None and row.state == "granted":
        return granted_of(tx, request_id)
    if row is None or row.state != "waiting":
        raise NotFound(f"request {request_id} does not wait any more")
    asked = _ask(row).request
    groups = groups_of(tx, asked.user)
    subjects = limits.subjects_of(asked.user, groups, asked.host)
    in_force, wanted = limits.ask_in_force(tx, subjects), _want(tx, subjects, chosen)
    found = limits.in_force(tx, subjects, in_force)
    applicant = _Applicant(groups, subjects, found, wanted)
    return _grant(tx, asked, applicant, chosen, terms, seen)


_LOCK = Statement(locking(requests, requests.c.id == sa.bindparam("request")))


def _grant(
    tx: Transaction,
    asked: Request,
    applicant: _Applicant,
    chosen: Sequence[GrantedDevice],
    terms: Terms,
    seen: Seen,
    *,
    new: bool = False,
) -> Granted | Lost:
    """Grant to a request that waits and is this transaction's to change; a `new` one is inserted
    with its grant."""
    total = limits.Use(len(chosen), sum(device.share_bytes for device in chosen), 1)
    wanted = applicant.wanted or _want(tx, applicant.subjects, chosen)
    counters = limits.lock_counters(tx, applicant.subjects, wanted.counters)
    refused = limits.refusal(counters, total)
    if refused is not None:
        raise refused
    described = {(row.node, row.idx): row for row in wanted.devices.rows()}
    taken = _take_devices(tx, chosen, described, terms)
    if isinstance(taken, Lost):
        return taken
    limits.count(tx, counters, total)
    longest = limits.smallest(applicant.in_force, "session_s")
    end_by_us = None if longest is None else tx.now_us + (longest.value or 0) * SECOND_US
    made = Granted(
        asked.id,
        f"s-{os.urandom(6).hex()}",
        f"a-{os.urandom(8).hex()}",
        taken + 1,
        tuple(chosen),
        tx.now_us,
        end_by_us,
        "active",
        asked.uid,
        described,
    )
    if new:
        _insert(tx, asked, state="granted", finished_us=tx.now_us)
    else:
        tx.later(_SET_GRANTED, {"request": asked.id, "now_us": tx.now_us})
        tx.changed("request", asked.id)
    _write_grant(tx, asked, applicant.groups, made, terms, seen)
    return made


def _want(
    tx: Transaction, subjects: Sequence[limits.Subject], chosen: Sequence[GrantedDevice]
) -> _Wanted:
    keys = keys_of(chosen)
    if len(keys) != len(chosen):
        raise ValueError("a device is chosen twice")
    return _Wanted(limits.ask_counters(tx, subjects), tx.ask(_DEVICES, keys=keys))


def _take_devices(
    tx: Transaction, chosen: Sequence[GrantedDevice], found: Described, terms: Terms
) -> int | Lost:
    """Count the devices as granted; returns the base of epochs that their servers stand on."""
    base = 0
    for device in chosen:
        row = found.get((device.node, device.index))
        if row is None:
            return Lost(f"device {device.index} of {device.node} is gone")
        base = int(row.base or 0)
        if row.granted_bytes + device.share_bytes > row.capacity_bytes:
            return Lost(f"device {device.index} of {device.node} has been granted to others")
        ready = row.state == row.node_state == "ready"
        if not (ready and row.healthy and row.node_healthy):
            return Lost(f"device {device.index} of {device.node} takes nothing new")
        if row.reconciled_base < base:
            return Lost(f"{device.node} has not been heard of since the ledger was restored")
        if terms.silent_us is not None and row.seen_us < tx.now_us - terms.silent_us:
            return Lost(f"{device.node} has not been heard of")
    add_granted(tx, [(device.node, device.index, device.share_bytes) for device in chosen])
    return base


# Locks the devices; what it says of their servers is as old as the statement, as it would be if
# the grant had come that much sooner.
_DEVICES = Statement(
    sa.select(
        *DESCRIPTION,
        devices.c.granted_bytes,
        devices.c.capacity_bytes,
        devices.c.state,
        devices.c.healthy,
        nodes.c.state.label("node_state"),
        nodes.c.healthy.label("node_healthy"),
        nodes.c.reconciled_base,
        nodes.c.seen_us,
        NEWEST_BASE.scalar_subquery().label("base"),
    )
    .join(nodes, nodes.c.name == devices.c.node)
    .where(any_of("keys", devices.c.node, devices.c.idx))
    .order_by(devices.c.node, devices.c.idx)
    .with_for_update(key_share=True, of=devices),
    "keys",
)


def _write_grant(
    tx: Transaction,
    asked: Request,
    groups: Sequence[str],
    made: Granted,
    terms: Terms,
    seen: Seen,
) -> None:
    now, allocation = tx.now_us, made.allocation
    whose = {"user_name": asked.user, "host": asked.host}
    of_allocation: Row = {
        "id": allocation,
        "request": asked.id,
        **whose,
        "groups": " ".join(groups),
        "epoch": made.epoch,
        "started_us": now,
        "end_by_us": made.end_by_us,
    }
    lease: Row = {
        "allocation": allocation,
        "holder_sha256": asked.holder_sha256,
        "renewed_us": now,
        "expires_us": now + terms.pickup_us,
    }
    session: Row = {
        "id": made.session,
        "allocation": allocation,
        **whose,
        "name": asked.name,
        "program": asked.program,
        "uid": asked.uid,
        "pid": asked.pid,
        "created_us": now,
    }
    insert(tx, allocations, [of_allocation])
    insert_grants(tx, allocation, asked.user, made.epoch, made.devices)
    insert(tx, leases, [lease])
    insert(tx, sessions, [session])
    tx.changed("session", made.session)
    what = [[device.node, device.index, device.share_bytes] for device in made.devices]
    origin = asked.host or ""
    tx.audit(asked.user, "grant", made.session, origin, allocation=allocation, devices=what, **seen)


_SET_GRANTED = Statement(
    requests.update()
    .where(requests.c.id == sa.bindparam("request"))
    .values(state="granted", reason="", finished_us=sa.bindparam("now_us"))
)


def signs(tx: Transaction, identities: Iterable[str]) -> None:
    """Note that these requests' clients are still there: one statement for all."""
    rows = locked(tx, requests, requests.c.id.in_(sorted(identities)))
    waiting = [row.id for row in rows if row.state == "waiting"]
    tx.connection.execute(
        requests.update().where(requests.c.id.in_(waiting)).values(seen_us=tx.now_us)
    )


def finish(tx: Transaction, request_id: str, state: str, reason: str) -> bool:
    """End a waiting request without a grant; returns False if it waits no more."""
    rows = locked(tx, requests, requests.c.id == request_id)
    if not rows or rows[0].state != "waiting":
        return False
    tx.connection.execute(
        requests.update()
        .where(requests.c.id == request_id)
        .values(state=state, reason=reason, finished_us=tx.now_us)
    )
    tx.changed("request", request_id)
    return True


def give_up(tx: Transaction, terms: Terms) -> list[str]:
    """End the waiting requests whose clients have gone, or whose time to wait is up."""
    silent = requests.c.seen_us < tx.now_us - terms.waiting_us
    late = requests.c.wait_until_us < tx.now_us
    rows = locked(tx, requests, (requests.c.state == "waiting") & sa.or_(silent, late))
    for row in rows:
        gone = row.seen_us < tx.now_us - terms.waiting_us
        state, reason = ("lost", "its client has gone") if gone else ("timed_out", row.reason)
        finish(tx, row.id, state, reason)
    return [row.id for row in rows]


def _admitted(
    tx: Transaction, request: Request, chosen: Sequence[GrantedDevice]
) -> _Applicant | None:
    """Who asks, if they may; None for a request that was sent before.

    What a grant of what is chosen will judge by comes along: so much less to wait for.
    """
    rows = tx.rows(_APPLICANT, user=request.user, request=request.id)
    if not rows or (rows[0].disabled and not rows[0].known):
        raise Forbidden(f"user {request.user} may not use this pool", "ask the administrator")
    if rows[0].known:
        return None
    if not rows[0].direct and request.host is None:
        raise Forbidden(
            f"user {request.user} has GPUs by client services alone",
            "use a machine that has one: outboard status tells whether this is such a machine",
        )
    groups = [str(row.group_name) for row in rows if row.group_name is not None]
    subjects = limits.subjects_of(request.user, groups, request.host)
    in_force = limits.ask_in_force(tx, subjects)
    wanted = _want(tx, subjects, chosen) if chosen else None
    found = limits.in_force(tx, subjects, in_force)
    _check(request, found)
    return _Applicant(groups, subjects, found, wanted)


_APPLICANT = Statement(
    sa.select(
        users.c.disabled,
        users.c.direct,
        memberships.c.group_name,
        sa.exists().where(requests.c.id == sa.bindparam("request")).label("known"),
    )
    .join(memberships, memberships.c.user_name == users.c.name, isouter=True)
    .where(users.c.name == sa.bindparam("user"))
    .order_by(memberships.c.group_name)
)


def _check(request: Request, found: Iterable[limits.Limit]) -> None:
    """Raises `LimitReached` for what these limits never allow."""
    for limit in found:
        whose = f"{limit.subject[0]} {limit.subject[1]}"
        ask = f"ask the administrator: outboard limits set {whose} {limit.kind} …"
        if limit.kind == "priority" and request.priority > (limit.value or 0):
            raise LimitReached(f"the highest priority of {whose} is {limit.value}", ask)
        if limit.kind == "gpus" and limit.value is not None and request.gpus > limit.value:
            raise LimitReached(f"the limit on GPUs at once of {whose} is {limit.value}", ask)
        if limit.kind == "pools" and (request.pool or "default") not in limit.names.split():
            raise LimitReached(
                f"{whose} may use {limit.names}, not {request.pool or 'default'}", ask
            )


def _wait_until(request: Request, now_us: int) -> int | None:
    return None if request.wait_s is None else now_us + int(request.wait_s * SECOND_US)


def _row(request: Request, now_us: int) -> Row:
    return {
        "id": request.id,
        "user_name": request.user,
        "host": request.host,
        "origin": request.host or "",
        "uid": request.uid,
        "pid": request.pid,
        "program": request.program,
        "holder_sha256": request.holder_sha256,
        "gpus": request.gpus,
        "share_millionths": request.share.millionths,
        "share_bytes": request.share.amount_bytes,
        "filters": [[one.key, one.operator, one.value] for one in request.filters],
        "spread": request.spread,
        "same_node": request.same_node,
        "node": request.node,
        "name": request.name,
        "pool": request.pool,
        "priority": request.priority,
        "wanted_us": None if request.wanted_s is None else int(request.wanted_s * SECOND_US),
        "created_us": now_us,
        "seen_us": now_us,
        "wait_until_us": _wait_until(request, now_us),
    }


def _find(tx: Transaction, identity: str) -> Ask | None:
    row = tx.one(_FIND, request=identity)
    return None if row is None else _ask(row)


_FIND = Statement(sa.select(requests).where(requests.c.id == sa.bindparam("request")))


def _ask(row: Any) -> Ask:
    wait_us = row.wait_until_us
    # SQLite's own rows have the document's text.
    filters = json.loads(row.filters) if isinstance(row.filters, str) else row.filters
    request = Request(
        id=row.id,
        gpus=row.gpus,
        share=Share(row.share_millionths, row.share_bytes),
        wait_s=None if wait_us is None else (wait_us - row.created_us) / SECOND_US,
        uid=row.uid,
        pid=row.pid,
        program=row.program,
        user=row.user_name,
        host=row.host,
        filters=tuple(Filter(*one) for one in filters),
        spread=row.spread,
        same_node=row.same_node,
        node=row.node,
        pool=row.pool,
        name=row.name,
        priority=row.priority,
        wanted_s=None if row.wanted_us is None else row.wanted_us / SECOND_US,
        holder_sha256=row.holder_sha256,
    )
    return Ask(request, row.state, row.reason, row.created_us, row.seen_us, wait_us)
