"""Nodes and devices: what agents report, what administrators close, what counts as granted.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from outboard.errors import NotFound, SessionsActive
from outboard.ledger.rows import any_of, insert_new, locked, portions
from outboard.ledger.schema import allocations, devices, epochs, grants, nodes
from outboard.ledger.statements import Statement
from outboard.ledger.transaction import Transaction
from outboard.model.node import Device, Node

_DEVICE_COLUMNS = (
    *("uuid", "name", "total_bytes", "capacity_bytes", "context_bytes", "minimum_share_bytes"),
    *("compute_capability", "pci", "multiprocessors"),
)


NEWEST_BASE = sa.select(sa.func.max(epochs.c.base))


def epoch_base(tx: Transaction) -> int:
    """The newest beginning of this ledger: 0, or what the last restore set."""
    return int(tx.connection.scalar(NEWEST_BASE) or 0)


def register_node(tx: Transaction, node: Node, **more: object) -> None:
    """Take in what an agent says of its node; `more` are further columns of `nodes`.

    A device with grants keeps its capacity: one that was exchanged or shrank under them is marked
    unhealthy until they have ended. What is no longer in the inventory is marked so too.
    """
    told = {
        "address": node.address,
        "tls": node.tls,
        "driver": node.driver,
        "driver_version": node.driver_version,
        "protocol": node.protocol,
        "software": node.software,
        "seen_us": tx.now_us,
        **more,
    }
    first = {"name": node.name, "enrolled_us": tx.now_us, "reconciled_base": epoch_base(tx)}
    if insert_new(tx, nodes, [{**first, **told}]):
        tx.audit(f"node:{node.name}", "node.register", node.name)
    else:
        state = sa.case((nodes.c.state == "removed", "ready"), else_=nodes.c.state)
        tx.connection.execute(
            nodes.update().where(nodes.c.name == node.name).values(**told, state=state)
        )
    before = {row.idx: row for row in locked(tx, devices, devices.c.node == node.name)}
    for device in sorted(node.devices, key=lambda device: device.index):
        _register_device(tx, node.name, device, before.pop(device.index, None))
    for row in before.values():
        _mark(tx, node.name, row.idx, "it is no longer in its node's inventory")
    tx.changed("node", node.name)


def _register_device(
    tx: Transaction, node: str, device: Device, before: sa.Row[tuple[object, ...]] | None
) -> None:
    told = {name: getattr(device, name) for name in _DEVICE_COLUMNS}
    if before is None:
        tx.connection.execute(devices.insert().values(node=node, idx=device.index, **told))
        return
    changed = before.uuid != device.uuid or device.capacity_bytes < before.granted_bytes
    if before.granted_bytes and changed:
        _mark(tx, node, device.index, "it was exchanged while parts of it were granted")
        return
    where = (devices.c.node == node) & (devices.c.idx == device.index)
    tx.connection.execute(
        devices.update().where(where).values(**told, healthy=True, health_reason="")
    )


def _mark(tx: Transaction, node: str, index: int, reason: str) -> None:
    where = (devices.c.node == node) & (devices.c.idx == index)
    tx.connection.execute(devices.update().where(where).values(healthy=False, health_reason=reason))


def set_health(tx: Transaction, node: str, reasons: Mapping[int | None, str]) -> None:
    """Note what is wrong: of the node (key None) or of a device; an empty reason is healthy."""
    for index, reason in reasons.items():
        told = {"healthy": not reason, "health_reason": reason}
        if index is None:
            tx.connection.execute(nodes.update().where(nodes.c.name == node).values(told))
            continue
        where = (devices.c.node == node) & (devices.c.idx == index)
        tx.connection.execute(devices.update().where(where).values(told))
    tx.changed("node", node)


def heartbeats(tx: Transaction, names: Iterable[str]) -> None:
    """Note that these nodes' agents live: one statement for many that were heard of."""
    for part in portions(set(names)):
        tx.ask(_LOCK, names=part)
        tx.later(_SEEN, {"names": part, "at_us": tx.now_us})


_LOCK = Statement(
    sa.select(nodes.c.name)
    .where(any_of("names", nodes.c.name))
    .order_by(nodes.c.name)
    .with_for_update(key_share=True),
    "names",
)
_SEEN = Statement(
    nodes.update().where(any_of("names", nodes.c.name)).values(seen_us=sa.bindparam("at_us")),
    "names",
)


def set_node_state(
    tx: Transaction, name: str, state: str, reason: str, deadline_us: int | None = None
) -> None:
    """`ready`, `cordoned` (nothing new) or `draining` (nothing new, the rest ends at the time)."""
    _one_node(tx, name)
    tx.connection.execute(
        nodes.update()
        .where(nodes.c.name == name)
        .values(state=state, state_reason=reason, drain_deadline_us=deadline_us)
    )
    tx.changed("node", name)


def describe_node(
    tx: Transaction, name: str, pool: str | None, labels: Mapping[str, str]
) -> dict[str, object]:
    """What an administrator says of a server: its pool, if it is another, and labels; an empty one
    is taken away. Returns both as they are now."""
    _one_node(tx, name)
    row = tx.connection.execute(sa.select(nodes).where(nodes.c.name == name)).one()
    merged = {key: value for key, value in {**row.labels, **labels}.items() if value}
    told = {"pool": row.pool if pool is None else pool, "labels": merged}
    tx.connection.execute(nodes.update().where(nodes.c.name == name).values(**told))
    tx.changed("node", name)
    return told


def set_device_state(tx: Transaction, node: str, index: int, state: str, reason: str) -> None:
    """`ready` or `cordoned`."""
    where = (devices.c.node == node) & (devices.c.idx == index)
    done = tx.connection.execute(
        devices.update().where(where).values(state=state, state_reason=reason)
    )
    if not done.rowcount:
        raise NotFound(f"there is no device {index} on {node}", "see what there is: outboard gpus")
    tx.changed("node", node)


def remove_node(tx: Transaction, name: str) -> None:
    """Take a node out of the pool; its rows stay for the accounts. Its devices must be free."""
    _one_node(tx, name)
    rows = locked(tx, devices, devices.c.node == name)
    if any(row.granted_bytes for row in rows):
        raise SessionsActive(
            f"{name} has sessions", f"end them first: outboard drain {name} --deadline 0s"
        )
    tx.connection.execute(nodes.update().where(nodes.c.name == name).values(state="removed"))
    tx.connection.execute(devices.update().where(devices.c.node == name).values(state="removed"))
    tx.changed("node", name)


def reconcile(tx: Transaction, name: str, running: Mapping[str, int]) -> list[str]:
    """Compare an agent's allocations (with their epochs) with the ledger's: which it is to end.

    What the ledger is ending and the agent does not have is over there. Once this has happened
    under the newest base, the node takes grants.
    """
    _one_node(tx, name)
    known = {
        row.id: row
        for row in tx.connection.execute(
            sa.select(allocations).where(
                allocations.c.id.in_(
                    sa.select(grants.c.allocation).where(
                        grants.c.node == name, grants.c.ended_us.is_(None)
                    )
                )
            )
        )
    }
    base = epoch_base(tx)
    tx.connection.execute(
        nodes.update().where(nodes.c.name == name).values(reconciled_base=base, seen_us=tx.now_us)
    )
    tx.changed("node", name)
    return sorted(
        allocation
        for allocation, epoch in running.items()
        if allocation not in known
        or known[allocation].state != "active"
        or known[allocation].epoch < epoch
    )


def _one_node(tx: Transaction, name: str) -> None:
    if not tx.rows(_LOCK, names=[name]):
        raise NotFound(f"there is no node {name}", "see what there is: outboard nodes")
