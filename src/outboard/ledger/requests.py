"""Requests: submitted once however often they are sent, granted at most once, forgotten in time.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from outboard.errors import Forbidden, LimitReached, NotFound
from outboard.ledger import limits
from outboard.ledger.nodes import epoch_base
from outboard.ledger.rows import insert_new, locked, pairs
from outboard.ledger.schema import (
    allocations,
    devices,
    grants,
    leases,
    nodes,
    requests,
    sessions,
    users,
)
from outboard.ledger.subjects import groups_of
from outboard.ledger.transaction import Transaction
from outboard.model.filters import Filter
from outboard.model.request import GrantedDevice, Request, Share

SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things hold. `silent_us` None takes every node for alive."""

    lease_us: int = 180 * SECOND_US
    pickup_us: int = 30 * SECOND_US
    waiting_us: int = 30 * SECOND_US
    silent_us: int | None = 30 * SECOND_US


@dataclass(frozen=True, slots=True)
class Granted:
    """What a request was granted, as the ledger has it."""

    request: str
    session: str
    allocation: str
    epoch: int
    devices: tuple[GrantedDevice, ...]
    started_us: int
    end_by_us: int | None
    state: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The chosen devices cannot be granted any more; the chooser's image is behind."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as the ledger has it."""

    request: Request
    state: str
    reason: str
    created_us: int
    seen_us: int
    wait_until_us: int | None


def submit(tx: Transaction, request: Request) -> Ask:
    """The request exists from here on; one that was sent before is returned as it stands.

    Raises `Forbidden` for a disabled user or somebody else's id, `LimitReached` for what the
    limits of priority and pools, or limits of use on an idle pool, would never allow.
    """
    before = _find(tx, request.id)
    if before is None:
        _check(tx, request)
        row = _row(request, tx.now_us)
        if insert_new(tx, requests, [row]):
            tx.changed("request", request.id)
            until_us = row["wait_until_us"]
            assert until_us is None or isinstance(until_us, int)
            return Ask(request, "waiting", "", tx.now_us, tx.now_us, until_us)
        before = _find(tx, request.id)  # somebody else's copy of it was faster
    assert before is not None
    if before.request.user != request.user:
        raise Forbidden("this request's id is somebody else's", "make a new id")
    return before


def exists(tx: Transaction, identity: str) -> bool:
    """Whether this request was submitted before."""
    return _find(tx, identity) is not None


def find_request(tx: Transaction, identity: str) -> Ask:
    """The request; raises `NotFound`."""
    found = _find(tx, identity)
    if found is None:
        raise NotFound(f"there is no request {identity}")
    return found


def waiting_requests(tx: Transaction) -> list[Ask]:
    """Everything that waits, oldest first."""
    statement = sa.select(requests).where(requests.c.state == "waiting")
    order = statement.order_by(requests.c.created_us, requests.c.id)
    return [_ask(row) for row in tx.connection.execute(order)]


def grant(
    tx: Transaction, request_id: str, chosen: Sequence[GrantedDevice], terms: Terms
) -> Granted | Lost:
    """Grant the chosen devices to a waiting request: completely, or not at all.

    A request that was granted before answers with that grant. Raises `LimitReached` naming the
    limit, `NotFound` for a request that waits no more.
    """
    rows = locked(tx, requests, requests.c.id == request_id)
    if rows and rows[0].state == "granted":
        return granted_of(tx, request_id)
    if not rows or rows[0].state != "waiting":
        raise NotFound(f"request {request_id} does not wait any more")
    asked = rows[0]
    groups = groups_of(tx, asked.user_name)
    subjects = limits.subjects_of(asked.user_name, groups, asked.host)
    total = limits.Use(len(chosen), sum(device.share_bytes for device in chosen), 1)
    counters = limits.lock_counters(tx, subjects)
    refused = limits.refusal(counters, total)
    if refused is not None:
        raise refused
    lost = _take_devices(tx, chosen, terms)
    if lost is not None:
        return lost
    limits.count(tx, counters, total)
    found = limits.in_force(tx, subjects)
    longest = limits.smallest(found, "session_s")
    end_by_us = None if longest is None else tx.now_us + (longest.value or 0) * SECOND_US
    return _write_grant(tx, asked, groups, chosen, end_by_us, terms)


def _take_devices(tx: Transaction, chosen: Sequence[GrantedDevice], terms: Terms) -> Lost | None:
    keys = [(device.node, device.index) for device in chosen]
    if len(set(keys)) != len(keys):
        raise ValueError("a device is chosen twice")
    rows = locked(tx, devices, pairs(devices.c.node, devices.c.idx, keys))
    found = {(row.node, row.idx): row for row in rows}
    names = sorted({node for node, _ in keys})
    servers = {
        row.name: row
        for row in tx.connection.execute(sa.select(nodes).where(nodes.c.name.in_(names)))
    }
    base = epoch_base(tx)
    for device in chosen:
        row, server = found.get((device.node, device.index)), servers.get(device.node)
        if row is None or server is None:
            return Lost(f"device {device.index} of {device.node} is gone")
        if row.granted_bytes + device.share_bytes > row.capacity_bytes:
            return Lost(f"device {device.index} of {device.node} has been granted to others")
        if row.state != "ready" or not row.healthy or server.state != "ready" or not server.healthy:
            return Lost(f"device {device.index} of {device.node} takes nothing new")
        if server.reconciled_base < base:
            return Lost(f"{device.node} has not been heard of since the ledger was restored")
        if terms.silent_us is not None and server.seen_us < tx.now_us - terms.silent_us:
            return Lost(f"{device.node} has not been heard of")
    for device in sorted(chosen, key=lambda device: (device.node, device.index)):
        add_granted(tx, device.node, device.index, device.share_bytes)
    return None


def add_granted(tx: Transaction, node: str, index: int, more_bytes: int) -> None:
    """Change a locked device's counter; its CHECK refuses what must never be."""
    tx.connection.execute(
        devices.update()
        .where(devices.c.node == node, devices.c.idx == index)
        .values(granted_bytes=devices.c.granted_bytes + more_bytes)
    )
    tx.changed("device", f"{node}/{index}")


def _write_grant(
    tx: Transaction,
    asked: sa.Row[tuple[object, ...]],
    groups: Sequence[str],
    chosen: Sequence[GrantedDevice],
    end_by_us: int | None,
    terms: Terms,
) -> Granted:
    now, user, host = tx.now_us, asked.user_name, asked.host
    allocation, session = f"a-{os.urandom(8).hex()}", f"s-{os.urandom(6).hex()}"
    epoch = epoch_base(tx) + 1
    whose = {"user_name": user, "host": host}
    tx.connection.execute(
        allocations.insert(),
        {
            "id": allocation,
            "request": asked.id,
            **whose,
            "groups": " ".join(groups),
            "epoch": epoch,
            "started_us": now,
            "end_by_us": end_by_us,
        },
    )
    insert_grants(tx, allocation, user, epoch, chosen)
    expires_us = now + terms.pickup_us
    tx.connection.execute(
        leases.insert(),
        {
            "allocation": allocation,
            "holder_sha256": asked.holder_sha256,
            "renewed_us": now,
            "expires_us": expires_us,
        },
    )
    tx.connection.execute(
        sessions.insert(),
        {
            "id": session,
            "allocation": allocation,
            **whose,
            "name": asked.name,
            "program": asked.program,
            "uid": asked.uid,
            "pid": asked.pid,
            "created_us": now,
        },
    )
    tx.connection.execute(
        requests.update()
        .where(requests.c.id == asked.id)
        .values(state="granted", reason="", finished_us=now)
    )
    tx.changed("request", asked.id)
    tx.changed("session", session)
    what = [[device.node, device.index, device.share_bytes] for device in chosen]
    tx.audit(user, "grant", session, asked.origin, allocation=allocation, devices=what)
    return Granted(asked.id, session, allocation, epoch, tuple(chosen), now, end_by_us, "active")


def insert_grants(
    tx: Transaction, allocation: str, user: str, epoch: int, chosen: Sequence[GrantedDevice]
) -> None:
    """A live row for each device of an allocation, in the order that its programs see them."""
    rows = [
        {
            "allocation": allocation,
            "ordinal": ordinal,
            "epoch": epoch,
            "node": device.node,
            "idx": device.index,
            "user_name": user,
            "share_bytes": device.share_bytes,
            "started_us": tx.now_us,
        }
        for ordinal, device in enumerate(chosen)
    ]
    tx.connection.execute(grants.insert(), rows)


def granted_of(tx: Transaction, request_id: str) -> Granted:
    """What a granted request has; the devices are those of its newest rows."""
    joined = allocations.join(sessions, sessions.c.allocation == allocations.c.id, isouter=True)
    row = tx.connection.execute(
        sa.select(allocations, sessions.c.id.label("session"))
        .select_from(joined)
        .where(allocations.c.request == request_id)
    ).one_or_none()
    if row is None:
        raise NotFound(f"request {request_id} has no allocation")
    return Granted(
        request_id,
        row.session or "",
        row.id,
        row.epoch,
        granted_devices(tx, row.id),
        row.started_us,
        row.end_by_us,
        row.state,
    )


def granted_devices(tx: Transaction, allocation: str) -> tuple[GrantedDevice, ...]:
    """An allocation's devices as it has them, or had them last."""
    statement = (
        sa.select(grants.c.ordinal, grants.c.node, grants.c.idx, grants.c.share_bytes)
        .where(grants.c.allocation == allocation)
        .order_by(grants.c.ordinal, grants.c.epoch)
    )
    newest = {row.ordinal: row for row in tx.connection.execute(statement)}
    return tuple(GrantedDevice(row.node, row.idx, row.share_bytes) for row in newest.values())


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


def _check(tx: Transaction, request: Request) -> None:
    """What needs no lock: it can only be refused here, and the counters are judged again."""
    user = tx.connection.execute(
        sa.select(users.c.disabled, users.c.direct).where(users.c.name == request.user)
    ).one_or_none()
    if user is None or user.disabled:
        raise Forbidden(f"user {request.user} may not use this pool", "ask the administrator")
    if not user.direct and request.host is None:
        raise Forbidden(
            f"user {request.user} has GPUs by client services alone",
            "use a machine that has one: outboard status tells whether this is such a machine",
        )
    groups = groups_of(tx, request.user)
    found = limits.in_force(tx, limits.subjects_of(request.user, groups, request.host))
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


def _row(request: Request, now_us: int) -> dict[str, object]:
    wait = request.wait_s
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
        "wait_until_us": None if wait is None else now_us + int(wait * SECOND_US),
    }


def _find(tx: Transaction, identity: str) -> Ask | None:
    row = tx.connection.execute(sa.select(requests).where(requests.c.id == identity)).one_or_none()
    return None if row is None else _ask(row)


def _ask(row: sa.Row[tuple[object, ...]]) -> Ask:
    wait_us = row.wait_until_us
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
        filters=tuple(Filter(*one) for one in row.filters),
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
