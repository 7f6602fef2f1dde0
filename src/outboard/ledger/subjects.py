"""Users, groups and client hosts.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from outboard.errors import MalformedRequest, NotFound
from outboard.ledger.rows import insert_new
from outboard.ledger.schema import groups, hosts, memberships, users
from outboard.ledger.statements import Statement
from outboard.ledger.transaction import Transaction

_LONGEST_NAME = 128


def ensure_user(tx: Transaction, name: str, full_name: str = "") -> bool:
    """The user exists from here on; returns whether it is new."""
    _checked(name)
    row = {"name": name, "full_name": full_name, "created_us": tx.now_us}
    made = bool(insert_new(tx, users, [row]))
    if made:
        tx.changed("user", name)
    return made


def change_user(tx: Transaction, name: str, **values: object) -> None:
    """Set columns of a user: full_name, weight, direct, disabled."""
    done = tx.connection.execute(users.update().where(users.c.name == name).values(values))
    if not done.rowcount:
        raise NotFound(f"there is no user {name}", "see who there is: outboard users")
    tx.changed("user", name)


def set_groups(tx: Transaction, user: str, names: Iterable[str]) -> None:
    """The user's groups from here on; groups that do not exist are made.

    What the user holds already stays counted where it was granted.
    """
    ensure_user(tx, user)
    chosen = sorted(set(names))
    for name in chosen:
        _checked(name)
    insert_new(tx, groups, [{"name": name, "created_us": tx.now_us} for name in chosen])
    tx.connection.execute(memberships.delete().where(memberships.c.user_name == user))
    insert_new(tx, memberships, [{"user_name": user, "group_name": name} for name in chosen])
    tx.changed("user", user)


def groups_of(tx: Transaction, user: str) -> list[str]:
    """The user's groups, in order."""
    return [str(row.group_name) for row in tx.rows(_GROUPS, user=user)]


_GROUPS = Statement(
    sa.select(memberships.c.group_name)
    .where(memberships.c.user_name == sa.bindparam("user"))
    .order_by(memberships.c.group_name)
)


def ensure_host(tx: Transaction, host: str, name: str = "") -> bool:
    """The client host exists from here on; returns whether it is new."""
    _checked(host)
    row = {"id": host, "name": name or host, "enrolled_us": tx.now_us, "seen_us": tx.now_us}
    made = bool(insert_new(tx, hosts, [row]))
    if made:
        tx.changed("host", host)
    return made


def host_policy(tx: Transaction, host: str) -> str:
    """any, service-only or blocked; a host that nobody enrolled is blocked."""
    policy = tx.connection.scalar(sa.select(hosts.c.policy).where(hosts.c.id == host))
    return "blocked" if policy is None else str(policy)


def change_host(tx: Transaction, host: str, **values: object) -> None:
    """Set columns of a host: name, policy."""
    done = tx.connection.execute(hosts.update().where(hosts.c.id == host).values(values))
    if not done.rowcount:
        raise NotFound(f"there is no host {host}")
    tx.changed("host", host)


def _checked(name: str) -> None:
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable() or name == "*" or "/" in name:
        raise MalformedRequest(
            f"{name[:40]!r} is no name", f"a name has 1 to {_LONGEST_NAME} printable characters"
        )
