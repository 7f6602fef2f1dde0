"""Machines join: GPU servers get a row and a token, client hosts a token; clones are others.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sqlalchemy as sa

from outboard.errors import Forbidden, MalformedRequest, NotFound
from outboard.ledger.nodes import epoch_base
from outboard.ledger.rows import insert_new, locked
from outboard.ledger.schema import controllers, nodes, tokens
from outboard.ledger.subjects import ensure_host
from outboard.ledger.tokens import Token, create_token, use_token
from outboard.ledger.transaction import Transaction

NODE_SCOPE = "agent"
JOIN_SCOPE = "enrol"
CONTROLLER_SCOPE = "controller"


def use_join_token(tx: Transaction, text: str) -> Token:
    """Take one use of a join token: its other scopes say what the machine becomes.

    Raises `Forbidden` for a token that is no join token, `Unauthenticated` for one that is void.
    """
    token = use_token(tx, text)
    if JOIN_SCOPE not in token.scopes or len(token.scopes) < 2:
        raise Forbidden(
            "this token cannot enrol a machine",
            "make one that can: outboard tokens create --join node, host or controller",
        )
    return token


def enrol_node(tx: Transaction, name: str, machine: str, key_sealed: bytes, ca_hash: str) -> str:
    """The node exists from here on, with this key; returns its token's text.

    A name belongs to the machine that took it until the node is removed. What the machine had
    before (key, tokens) is void.
    """
    if not 0 < len(name) <= 128 or not name.isprintable() or "/" in name:
        raise MalformedRequest(f"{name[:40]!r} is no name for a node")
    row = {
        "name": name,
        "machine": machine,
        "key_sealed": key_sealed,
        "enrolled_us": tx.now_us,
        "seen_us": 0,
        "reconciled_base": epoch_base(tx),
    }
    if not insert_new(tx, nodes, [row]):
        (before,) = locked(tx, nodes, nodes.c.name == name)
        if before.machine != machine and before.state != "removed":
            raise Forbidden(
                f"{name} is another machine of this pool",
                "join under another name (--name), or remove that one first: outboard nodes remove"
                f" {name}",
            )
        again = {"machine": machine, "key_sealed": key_sealed, "enrolled_us": tx.now_us}
        tx.connection.execute(
            nodes.update().where(nodes.c.name == name).values(**again, state="ready")
        )
    tx.audit(f"node:{name}", "node.enrol", name, machine=machine[:16])
    tx.changed("node", name)
    _void_tokens(tx, "node", name)
    return create_token(tx, ("node", name), [NODE_SCOPE], note="enrolment", ca_hash=ca_hash)


def enrol_host(
    tx: Transaction, name: str, machine: str, scopes: frozenset[str], ca_hash: str
) -> str:
    """The client host exists from here on; returns its token, with the join token's rights."""
    identity = f"h-{machine[:16]}"
    ensure_host(tx, identity, name)
    tx.audit(f"host:{identity}", "host.enrol", identity, name=name)
    _void_tokens(tx, "host", identity)
    return create_token(
        tx, ("host", identity), scopes - {JOIN_SCOPE}, note="enrolment", ca_hash=ca_hash
    )


def enrol_controller(tx: Transaction, name: str, machine: str) -> None:
    """A machine is given what controllers have; it writes its own row, with its public key."""
    row = tx.connection.execute(
        sa.select(controllers.c.revoked_us).where(controllers.c.name == name)
    ).one_or_none()
    if row is not None and row.revoked_us is None:
        raise Forbidden(
            f"{name} is another controller of this pool",
            "join under another name (the first --name), or remove that one first: outboard"
            f" controller remove {name}",
        )
    tx.audit(f"controller:{name}", "controller.enrol", name, machine=machine[:16])


def remove_controller(tx: Transaction, name: str) -> None:
    """What it signs is void from the agents' next reports on; its files there are not touched."""
    rows = locked(tx, controllers, controllers.c.revoked_us.is_(None))
    if name not in {row.name for row in rows}:
        raise NotFound(f"there is no controller {name}", "see them: outboard controller list")
    if len(rows) == 1:
        raise Forbidden(f"{name} is the pool's only controller", "let another one join first")
    tx.connection.execute(
        controllers.update().where(controllers.c.name == name).values(revoked_us=tx.now_us)
    )
    tx.changed("controller", name)


def node_keys(tx: Transaction, names: set[str]) -> dict[str, bytes]:
    """The sealed keys of these nodes, as far as they have one."""
    statement = sa.select(nodes.c.name, nodes.c.key_sealed).where(
        nodes.c.name.in_(sorted(names)), nodes.c.key_sealed.is_not(None)
    )
    return {row.name: bytes(row.key_sealed) for row in tx.connection.execute(statement)}


def _void_tokens(tx: Transaction, kind: str, subject: str) -> None:
    tx.connection.execute(
        tokens.update()
        .where(
            tokens.c.subject_kind == kind,
            tokens.c.subject == subject,
            tokens.c.revoked_us.is_(None),
        )
        .values(revoked_us=tx.now_us)
    )
