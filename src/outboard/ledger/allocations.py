"""Allocations: kept by leases, ended in two steps, taken over, resized.

SPDX-License-Identifier: Apache-2.0

Ending has two steps since the bytes are free only once the workers that hold them are gone: first
the allocation is *ending* and has no lease; each node's part is released when its agent says so.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from outboard.errors import NotFound, Stale
from outboard.ledger import limits
from outboard.ledger.grants import Granted, Lost, add_granted, granted_of, insert_grants
from outboard.ledger.nodes import epoch_base
from outboard.ledger.requests import Terms
from outboard.ledger.rows import any_of, locked, locking
from outboard.ledger.schema import (
    allocations,
    devices,
    epochs,
    grants,
    leases,
    nodes,
    sessions,
)
from outboard.ledger.statements import Statement
from outboard.ledger.transaction import Transaction
from outboard.model.request import GrantedDevice

# An allocation counts up in the low bits, a base is the restore's second in those above; together
# they stay below 2**53, which every JSON reader can hold.
_EPOCH_BITS = 20

# Who ends what a rule says: the lease is over, the longest time is up, a node is drained.
BY_RULE = "controller"


def renew(
    tx: Transaction, holders: Iterable[str], programs: Mapping[str, int], terms: Terms
) -> set[str]:
    """Renew leases: for their holders, and for agents that say how many programs are connected.

    An agent renews only while there is a program. Returns the allocations that have a lease.
    """
    held = set(holders)
    names = held | set(programs)
    rows = tx.connection.execute(_LEASES, {"allocations": sorted(names)})
    before = {str(row.allocation): row.programs for row in rows}
    alive = set(before)
    renewed = alive & (held | {name for name, count in programs.items() if count})
    tx.connection.execute(
        leases.update()
        .where(leases.c.allocation.in_(sorted(renewed)))
        .values(picked_up=True, renewed_us=tx.now_us, expires_us=tx.now_us + terms.lease_us)
    )
    for name in sorted(alive & set(programs)):
        if programs[name] != before[name]:
            tx.change(_SET_PROGRAMS, {"of_allocation": name, "count": programs[name]})
    return alive


_SET_PROGRAMS = Statement(
    leases.update()
    .where(leases.c.allocation == sa.bindparam("of_allocation"))
    .values(programs=sa.bindparam("count"))
)


_LEASES = locking(leases, any_of("allocations", leases.c.allocation))


def state_of(tx: Transaction, allocation: str) -> str:
    """active, ending or ended."""
    row = tx.one(_STATE, of_allocation=allocation)
    if row is None:
        raise NotFound(f"there is no allocation {allocation}")
    return str(row.state)


_STATE = Statement(
    sa.select(allocations.c.state).where(allocations.c.id == sa.bindparam("of_allocation"))
)


def expired(tx: Transaction, most: int = 100) -> list[str]:
    """Allocations whose lease seems over; `end_expired` judges again under the lock."""
    statement = sa.select(leases.c.allocation).where(leases.c.expires_us < tx.now_us)
    return list(
        tx.connection.execute(statement.order_by(leases.c.expires_us).limit(most)).scalars()
    )


def overdue(tx: Transaction) -> list[tuple[str, str]]:
    """(allocation, reason) of what has to end now: its own time is up, or its node's drain."""
    active = allocations.c.state == "active"
    late = sa.select(allocations.c.id).where(active, allocations.c.end_by_us < tx.now_us)
    found = [
        (str(name), "its longest time is up") for name in tx.connection.execute(late).scalars()
    ]
    drained = (
        sa.select(grants.c.allocation, nodes.c.name)
        .join(nodes, nodes.c.name == grants.c.node)
        .join(allocations, allocations.c.id == grants.c.allocation)
        .where(active, grants.c.ended_us.is_(None), nodes.c.drain_deadline_us < tx.now_us)
        .where(nodes.c.state == "draining")
        .distinct()
    )
    for allocation, node in tx.connection.execute(drained):
        found.append((allocation, f"{node} is drained"))
    return found


def end_expired(tx: Transaction, allocation: str) -> bool:
    """Begin to end an allocation if its lease is over by the clock, read under the lease's lock."""
    row = _lock(tx, allocation)
    rows = locked(tx, leases, leases.c.allocation == allocation)
    if row is None or not rows or rows[0].expires_us >= tx.now_us:
        return False
    reason = "its lease is over" if rows[0].picked_up else "nobody picked it up"
    return begin_end_of(tx, row, BY_RULE, reason)


def begin_end(tx: Transaction, allocation: str, actor: str, reason: str) -> bool:
    """No new programs from here on; returns False if it was ending already, or over."""
    row = _lock(tx, allocation)
    return row is not None and begin_end_of(tx, row, actor, reason)


def lock_session(tx: Transaction, session: str) -> Any:
    """The allocation of a session, locked; None if it has none."""
    return tx.one(_LOCK_SESSION, of_session=session)


def begin_end_of(tx: Transaction, row: Any, actor: str, reason: str) -> bool:
    """`begin_end` of an allocation that is locked."""
    if row.state != "active":
        return False
    allocation = str(row.id)
    _set_state(tx, allocation, "ending", reason)
    tx.later(_DROP_LEASE, {"of_allocation": allocation})
    _set_session(tx, row, "ending", reason, "" if actor == BY_RULE else actor)
    tx.audit(actor, "end", str(row.session), allocation=allocation, reason=reason)
    return True


_DROP_LEASE = Statement(leases.delete().where(leases.c.allocation == sa.bindparam("of_allocation")))


def release(tx: Transaction, allocation: str, node: str | None = None) -> bool:
    """The workers of an ending allocation are gone, on one node or everywhere: free its bytes.

    Returns whether that ended it. Doing it twice is doing it once.
    """
    found = tx.ask(_LOCK, of_allocation=allocation)
    live = tx.rows(_LIVE, of_allocation=allocation)
    row = found.one()
    if row is None or row.state != "ending":
        return False
    going = [grant for grant in live if node is None or grant.node == node]
    over = len(going) == len(live)
    less = limits.Use(len(going), sum(grant.share_bytes for grant in going), int(over))
    subjects = limits.subjects_of(row.user_name, row.groups.split(), row.host)
    limits.count(tx, limits.lock_counters(tx, subjects), -less)
    add_granted(tx, [(grant.node, grant.idx, -grant.share_bytes) for grant in going])
    _end_grants(tx, going)
    if over:
        _set_state(tx, allocation, "ended", str(row.reason), max(tx.now_us, row.started_us))
        _set_session(tx, row, "ended", str(row.reason))
    return over


# The allocation's lock guards its grants: who changes them has it.
_LIVE = Statement(
    sa.select(
        grants.c.allocation,
        grants.c.ordinal,
        grants.c.epoch,
        grants.c.node,
        grants.c.idx,
        grants.c.share_bytes,
        grants.c.started_us,
    )
    .where(grants.c.allocation == sa.bindparam("of_allocation"), grants.c.ended_us.is_(None))
    .order_by(grants.c.ordinal)
)


def check_holder(tx: Transaction, allocation: str, holder_sha256: str) -> None:
    """Raises `Stale` unless the lease is held by no secret, or by the one with this hash."""
    kept = tx.connection.scalar(
        sa.select(leases.c.holder_sha256).where(leases.c.allocation == allocation)
    )
    if kept and not hmac.compare_digest(str(kept), holder_sha256):
        raise Stale("somebody else has taken this session over", "start a new session")


def take_over(
    tx: Transaction, allocation: str, holder_sha256: str, before_sha256: str, terms: Terms
) -> Granted:
    """A new holder shows the old one's secret: the epoch rises, which fences the old one off.

    Raises `Stale` if the secret is not the newest, `NotFound` if the allocation is not active.
    """
    row = _active(tx, allocation)
    lease = locked(tx, leases, leases.c.allocation == allocation)[0]
    if lease.holder_sha256 == holder_sha256:
        return granted_of(tx, str(row.request))  # said again, because the answer was lost
    if lease.holder_sha256 != before_sha256:
        raise Stale("somebody else has taken this session over", "start a new session")
    tx.connection.execute(
        leases.update()
        .where(leases.c.allocation == allocation)
        .values(
            holder_sha256=holder_sha256,
            picked_up=True,
            renewed_us=tx.now_us,
            expires_us=tx.now_us + terms.lease_us,
        )
    )
    _raise_epoch(tx, row)
    tx.audit(row.user_name, "takeover", allocation)
    return granted_of(tx, str(row.request))


def resize(tx: Transaction, allocation: str, share_bytes: Sequence[int]) -> Granted | Lost:
    """Give each device of an active allocation another share; completely, or not at all."""
    row = _active(tx, allocation)
    live = tx.rows(_LIVE, of_allocation=allocation)
    if len(share_bytes) != len(live) or min(share_bytes) <= 0:
        raise NotFound(f"{allocation} has {len(live)} devices", "give a share for each")
    if [grant.share_bytes for grant in live] == list(share_bytes):
        return granted_of(tx, str(row.request))
    more = limits.Use(0, sum(share_bytes) - sum(grant.share_bytes for grant in live), 0)
    subjects = limits.subjects_of(row.user_name, row.groups.split(), row.host)
    counters = limits.lock_counters(tx, subjects)
    refused = limits.refusal(counters, more)
    if refused is not None:
        raise refused
    wanted = dict(zip(((grant.node, grant.idx) for grant in live), share_bytes, strict=True))
    ordered = _lock_devices(tx, live)
    for grant in ordered:
        device = tx.connection.execute(
            sa.select(devices).where(devices.c.node == grant.node, devices.c.idx == grant.idx)
        ).one()
        after = device.granted_bytes - grant.share_bytes + wanted[grant.node, grant.idx]
        if after > device.capacity_bytes:
            return Lost(f"device {grant.idx} of {grant.node} has not that much left")
    limits.count(tx, counters, more)
    add_granted(
        tx,
        [
            (grant.node, grant.idx, wanted[grant.node, grant.idx] - grant.share_bytes)
            for grant in ordered
        ],
    )
    _end_grants(tx, live)
    epoch = _raise_epoch(tx, row)
    chosen = [GrantedDevice(key[0], key[1], amount) for key, amount in wanted.items()]
    insert_grants(tx, allocation, str(row.user_name), epoch, chosen)
    tx.audit(row.user_name, "resize", allocation, shares=list(share_bytes))
    return granted_of(tx, str(row.request))


def restore(tx: Transaction, reason: str, terms: Terms) -> int:
    """Begin the ledger anew after it was put back from a backup: returns the new base of epochs.

    All that is active gets an epoch above every one that was ever handed out, and a whole lease to
    show itself; nodes take grants again as their agents reconcile.
    """
    newest = epoch_base(tx)
    base = max((tx.now_us // 1_000_000) << _EPOCH_BITS, newest + (1 << _EPOCH_BITS))
    tx.connection.execute(epochs.insert().values(base=base, reason=reason, begun_us=tx.now_us))
    locked(tx, allocations, allocations.c.state == "active")
    tx.connection.execute(
        allocations.update().where(allocations.c.state != "ended").values(epoch=base + 1)
    )
    tx.connection.execute(leases.update().values(expires_us=tx.now_us + terms.lease_us))
    tx.audit("controller", "restore", str(base), reason=reason)
    tx.changed("ledger", str(base))
    return base


def _lock(tx: Transaction, allocation: str) -> Any:
    """The allocation's row, locked, with its session's id; None if there is none."""
    return tx.one(_LOCK, of_allocation=allocation)


def _locking(condition: sa.ColumnElement[bool], *, has_session: bool) -> Statement:
    return Statement(
        sa.select(allocations, sessions.c.id.label("session"))
        .join(sessions, sessions.c.allocation == allocations.c.id, isouter=not has_session)
        .where(condition)
        .with_for_update(key_share=True, of=allocations)
    )


_LOCK = _locking(allocations.c.id == sa.bindparam("of_allocation"), has_session=False)
_LOCK_SESSION = _locking(sessions.c.id == sa.bindparam("of_session"), has_session=True)


def _active(tx: Transaction, allocation: str) -> Any:
    row = _lock(tx, allocation)
    if row is None or row.state != "active":
        raise NotFound(f"there is no active allocation {allocation}")
    return row


def _lock_devices(tx: Transaction, rows: Sequence[Any]) -> list[Any]:
    """Lock the devices of some grants; returns the grants in that order."""
    keys = [(str(row.node), int(row.idx)) for row in rows]
    if keys:
        tx.rows(_LOCK_DEVICES, keys=sorted(keys))
    return sorted(rows, key=lambda row: (row.node, row.idx))


_LOCK_DEVICES = Statement(locking(devices, any_of("keys", devices.c.node, devices.c.idx)), "keys")


def _end_grants(tx: Transaction, going: Sequence[Any]) -> None:
    # A clock that was set back must not make a span that ends before it begins.
    ends = [
        {
            "of_allocation": grant.allocation,
            "of_ordinal": grant.ordinal,
            "of_epoch": grant.epoch,
            "at_us": max(tx.now_us, grant.started_us),
        }
        for grant in going
    ]
    tx.later(_END_GRANT, *ends)


_END_GRANT = Statement(
    grants.update()
    .where(
        grants.c.allocation == sa.bindparam("of_allocation"),
        grants.c.ordinal == sa.bindparam("of_ordinal"),
        grants.c.epoch == sa.bindparam("of_epoch"),
    )
    .values(ended_us=sa.bindparam("at_us"))
)


def _raise_epoch(tx: Transaction, row: Any) -> int:
    epoch = int(row.epoch) + 1
    tx.connection.execute(
        allocations.update().where(allocations.c.id == row.id).values(epoch=epoch)
    )
    tx.changed("allocation", str(row.id))
    return epoch


def _set_state(
    tx: Transaction, allocation: str, state: str, reason: str, ended_us: int | None = None
) -> None:
    told = {"of_allocation": allocation, "new_state": state, "new_reason": reason}
    tx.later(_SET_STATE, {**told, "new_ended_us": ended_us})


_SET_STATE = Statement(
    allocations.update()
    .where(allocations.c.id == sa.bindparam("of_allocation"))
    .values(
        state=sa.bindparam("new_state"),
        reason=sa.bindparam("new_reason"),
        ended_us=sa.bindparam("new_ended_us"),
    )
)


def _set_session(
    tx: Transaction, row: Any, state: str, reason: str, ended_by: str | None = None
) -> None:
    """Note the state of a locked allocation's session, if it has one; None leaves who ended it."""
    if row.session is None:
        return
    told = {
        "of_session": row.session,
        "new_state": state,
        "new_reason": reason,
        "new_ended_us": tx.now_us if state == "ended" else None,
    }
    if ended_by is None:
        tx.later(_SET_SESSION, told)
    else:
        tx.later(_SET_SESSION_ENDING, {**told, "new_ended_by": ended_by})
    tx.changed("session", str(row.session))


_STATE_OF_SESSION = (
    sessions.update()
    .where(sessions.c.id == sa.bindparam("of_session"))
    .values(
        state=sa.bindparam("new_state"),
        reason=sa.bindparam("new_reason"),
        ended_us=sa.bindparam("new_ended_us"),
    )
)
_SET_SESSION = Statement(_STATE_OF_SESSION)
_SET_SESSION_ENDING = Statement(_STATE_OF_SESSION.values(ended_by=sa.bindparam("new_ended_by")))
