"""The ledger's rows as the API shows them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from outboard.errors import NotFound
from outboard.ledger.idleness import judge
from outboard.ledger.schema import (
    allocations,
    audit,
    controllers,
    devices,
    grants,
    groups,
    hosts,
    leases,
    limit_use,
    limits,
    memberships,
    nodes,
    requests,
    sessions,
    users,
)
from outboard.ledger.statements import Statement
from outboard.ledger.transaction import Transaction
from outboard.moments import iso

Row = dict[str, Any]
HeldBytes = Callable[[str], list[int] | None]


def list_devices(tx: Transaction) -> list[Row]:
    """Every device with what is granted of it; without the driver's details of its node."""
    users_of: dict[tuple[str, int], list[str]] = {}
    for row in tx.rows(_SESSIONS_OF_DEVICES):
        users_of.setdefault((row.node, row.idx), []).append(row.id)
    return [
        {
            "node": row.node,
            "index": row.idx,
            "uuid": row.uuid,
            "name": row.name,
            "software": bool(row.software),
            "total_bytes": row.total_bytes,
            "capacity_bytes": row.capacity_bytes,
            "granted_bytes": row.granted_bytes,
            "free_bytes": row.capacity_bytes - row.granted_bytes,
            "context_bytes": row.context_bytes,
            "compute_capability": row.compute_capability,
            "pci": row.pci,
            "multiprocessors": row.multiprocessors,
            "state": row.state if row.node_state == "ready" else row.node_state,
            "healthy": bool(row.healthy),
            "reason": row.health_reason or row.state_reason,
            "sessions": users_of.get((row.node, row.idx), []),
        }
        for row in tx.rows(_DEVICES)
    ]


_SESSIONS_OF_DEVICES = Statement(
    sa.select(grants.c.node, grants.c.idx, sessions.c.id)
    .join(sessions, sessions.c.allocation == grants.c.allocation)
    .where(grants.c.ended_us.is_(None))
)
_DEVICES = Statement(
    sa.select(devices, nodes.c.software.label("software"), nodes.c.state.label("node_state"))
    .join(nodes, nodes.c.name == devices.c.node)
    .where(devices.c.state != "removed")
    .order_by(devices.c.node, devices.c.idx)
)


def list_nodes(tx: Transaction) -> list[Row]:
    """Every node with its state and when its agent was last heard of."""
    counted = {
        row.node: row
        for row in tx.connection.execute(
            sa.select(
                devices.c.node,
                sa.func.count().label("amount"),
                sa.func.sum(devices.c.capacity_bytes).label("capacity"),
                sa.func.sum(devices.c.granted_bytes).label("granted"),
            )
            .where(devices.c.state != "removed")
            .group_by(devices.c.node)
        )
    }
    statement = sa.select(nodes).where(nodes.c.state != "removed").order_by(nodes.c.name)
    found = []
    for row in tx.connection.execute(statement):
        sums = counted.get(row.name)
        found.append(
            {
                "name": row.name,
                "address": row.address,
                "hostname": row.hostname,
                "tls": row.tls,
                "pool": row.pool,
                "driver": row.driver,
                "driver_version": row.driver_version,
                "driver_release": row.driver_release,
                "protocol": row.protocol,
                "release": row.release,
                "software": row.software,
                "labels": row.labels,
                "state": row.state,
                "reason": row.state_reason,
                "drain_deadline": iso(row.drain_deadline_us),
                "healthy": row.healthy,
                "health_reason": row.health_reason,
                "seen": iso(row.seen_us),
                "silent_s": max(0, tx.now_us - row.seen_us) // 1_000_000,
                "devices": int(sums.amount) if sums else 0,
                "capacity_bytes": int(sums.capacity) if sums else 0,
                "granted_bytes": int(sums.granted) if sums else 0,
            }
        )
    return found


def list_sessions(
    tx: Transaction, user: str | None, held: HeldBytes, session: str | None = None
) -> list[Row]:
    """Sessions that have not ended, of one user or all; or one session, ended or not."""
    statement = (
        sa.select(
            sessions,
            allocations.c.epoch,
            allocations.c.end_by_us,
            allocations.c.used_us,
            leases.c.programs,
            leases.c.expires_us,
        )
        .join(allocations, allocations.c.id == sessions.c.allocation, isouter=True)
        .join(leases, leases.c.allocation == sessions.c.allocation, isouter=True)
        .order_by(sessions.c.created_us, sessions.c.id)
    )
    if session is not None:
        statement = statement.where(sessions.c.id == session)
    else:
        statement = statement.where(sessions.c.state != "ended")
    if user is not None:
        statement = statement.where(sessions.c.user_name == user)
    rows = tx.connection.execute(statement).all()
    granted = _grants_of(tx, [row.allocation for row in rows if row.allocation])
    notices = {one.allocation: one.notice for one in judge(tx)}
    return [_session(tx, row, granted.get(row.allocation, []), held, notices) for row in rows]


def find_session(tx: Transaction, session: str) -> Any:
    """The session's row with its allocation's epoch and end; raises `NotFound`."""
    row = tx.one(_FIND_SESSION, session=session)
    if row is None:
        raise NotFound(f"there is no session {session}", "see what there is: outboard sessions")
    return row


_FIND_SESSION = Statement(
    sa.select(sessions, allocations.c.epoch, allocations.c.request, allocations.c.end_by_us)
    .join(allocations, allocations.c.id == sessions.c.allocation, isouter=True)
    .where(sessions.c.id == sa.bindparam("session"))
)


def _grants_of(tx: Transaction, names: list[str]) -> dict[str, list[Row]]:
    statement = (
        sa.select(grants)
        .where(grants.c.allocation.in_(names), grants.c.ended_us.is_(None))
        .order_by(grants.c.allocation, grants.c.ordinal)
    )
    found: dict[str, list[Row]] = {}
    for row in tx.connection.execute(statement):
        device = {"node": row.node, "index": row.idx, "share_bytes": row.share_bytes}
        found.setdefault(row.allocation, []).append(device)
    return found


def _session(
    tx: Transaction,
    row: sa.Row[tuple[object, ...]],
    chosen: list[Row],
    held: HeldBytes,
    notices: Mapping[str, str],
) -> Row:
    amounts = held(str(row.id)) or []
    for number, device in enumerate(chosen):
        device["held_bytes"] = amounts[number] if number < len(amounts) else None
    return {
        "id": row.id,
        "name": row.name,
        "user": row.user_name,
        "host": row.host,
        "state": row.state,
        "reason": row.reason,
        "allocation": row.allocation,
        "epoch": row.epoch,
        "uid": row.uid,
        "pid": row.pid,
        "program": row.program,
        "started": iso(row.created_us),
        "age_s": max(0, (row.ended_us or tx.now_us) - row.created_us) // 1_000_000,
        "ends": iso(row.end_by_us),
        "lease_expires": iso(row.expires_us),
        "programs": row.programs or 0,
        "used": iso(row.used_us or None),
        "notice": notices.get(str(row.allocation), ""),
        "devices": chosen,
    }


def list_users(tx: Transaction) -> list[Row]:
    """Every user with groups and what is in use."""
    in_groups: dict[str, list[str]] = {}
    for row in tx.connection.execute(sa.select(memberships).order_by(memberships.c.group_name)):
        in_groups.setdefault(row.user_name, []).append(row.group_name)
    return [
        {
            "name": row.name,
            "full_name": row.full_name,
            "weight": row.weight,
            "direct": row.direct,
            "disabled": row.disabled,
            "groups": in_groups.get(row.name, []),
            "created": iso(row.created_us),
        }
        for row in tx.connection.execute(sa.select(users).order_by(users.c.name))
    ]


def list_limits(tx: Transaction) -> list[Row]:
    """Every limit that was set, with what is in use where it is counted."""
    used = {
        (row.subject_kind, row.subject, row.kind): row.used
        for row in tx.connection.execute(sa.select(limit_use))
    }
    statement = sa.select(limits).order_by(limits.c.subject_kind, limits.c.subject, limits.c.kind)
    return [
        {
            "subject_kind": row.subject_kind,
            "subject": row.subject,
            "kind": row.kind,
            "value": row.value,
            "names": row.names.split(),
            "used": used.get((row.subject_kind, row.subject, row.kind)),
            "set": iso(row.set_us),
        }
        for row in tx.connection.execute(statement)
    ]


def list_hosts(tx: Transaction) -> list[Row]:
    """Every client host that has enrolled."""
    return [
        {"id": row.id, "name": row.name, "policy": row.policy, "enrolled": iso(row.enrolled_us)}
        for row in tx.connection.execute(sa.select(hosts).order_by(hosts.c.name, hosts.c.id))
    ]


def list_controllers(tx: Transaction) -> list[Row]:
    """The pool's controllers; when one started last."""
    statement = sa.select(controllers).where(controllers.c.revoked_us.is_(None))
    return [
        {
            "name": row.name,
            "address": row.address,
            "joined": iso(row.joined_us),
            "started": iso(row.seen_us),
        }
        for row in tx.connection.execute(statement.order_by(controllers.c.name))
    ]


def list_groups(tx: Transaction) -> list[str]:
    """The names of all groups."""
    return list(tx.connection.execute(sa.select(groups.c.name).order_by(groups.c.name)).scalars())


def read_audit(tx: Transaction, after: int, most: int) -> list[Row]:
    """The audit log's lines after a number, oldest first."""
    statement = sa.select(audit).where(audit.c.id > after).order_by(audit.c.id).limit(most)
    return [
        {
            "id": row.id,
            "at": iso(row.at_us),
            "actor": row.actor,
            "origin": row.origin,
            "action": row.action,
            "subject": row.subject,
            "detail": row.detail,
        }
        for row in tx.connection.execute(statement)
    ]


def counts(tx: Transaction) -> Mapping[str, int]:
    """How many of each thing there are, for the metrics and the status."""
    found = {}
    for label, table, condition in (
        ("nodes", nodes, nodes.c.state != "removed"),
        ("sessions", sessions, sessions.c.state != "ended"),
        ("waiting", requests, requests.c.state == "waiting"),
    ):
        statement = sa.select(sa.func.count()).select_from(table).where(condition)
        found[label] = int(tx.connection.scalar(statement) or 0)
    return found
