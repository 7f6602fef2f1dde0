"""Tokens: made, checked, used up, revoked. The ledger has the SHA-256 of the secret alone.

SPDX-License-Identifier: Apache-2.0

Text: `ob_<id>_<secret>_<16 hex digits of the CA's hash>`; id 16 and secret 64 hexadecimal digits.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from outboard.errors import MalformedRequest, NotFound, Unauthenticated
from outboard.ledger.schema import tokens
from outboard.ledger.statements import Statement
from outboard.ledger.transaction import Transaction

SCOPES = ("use", "read", "admin", "agent", "enrol", "service", "controller")
_PREFIX = "ob"
_UNKNOWN = ("the token is unknown, expired or revoked", "sign in again: outboard login URL")


@dataclass(frozen=True, slots=True)
class Token:
    """A token that holds: whose it is and what it allows."""

    id: str
    subject_kind: str
    subject: str
    scopes: frozenset[str]
    expires_us: int | None


def create_token(
    tx: Transaction,
    subject: tuple[str, str],
    scopes: Iterable[str],
    *,
    lifetime_us: int | None = None,
    uses: int | None = None,
    note: str = "",
    ca_hash: str = "0" * 16,
) -> str:
    """A new token's text, which nobody can get again."""
    chosen = sorted(set(scopes))
    if not chosen or set(chosen) - set(SCOPES):
        raise MalformedRequest(
            f"there is no scope {', '.join(sorted(set(chosen) - set(SCOPES))) or 'at all'}",
            f"scopes are {', '.join(SCOPES)}",
        )
    identity, secret = os.urandom(8).hex(), os.urandom(32).hex()
    tx.connection.execute(
        tokens.insert().values(
            id=identity,
            secret_sha256=_digest(secret),
            subject_kind=subject[0],
            subject=subject[1],
            scopes=" ".join(chosen),
            note=note,
            created_us=tx.now_us,
            expires_us=None if lifetime_us is None else tx.now_us + lifetime_us,
            uses_left=uses,
        )
    )
    tx.changed("token", identity)
    return f"{_PREFIX}_{identity}_{secret}_{ca_hash}"


def check_token(tx: Transaction, text: str) -> Token:
    """The token behind a text; raises `Unauthenticated`, in the same words whatever is wrong."""
    parts = text.split("_")
    if len(parts) != 4 or parts[0] != _PREFIX or len(parts[1]) != 16:
        raise Unauthenticated(*_UNKNOWN)
    row = tx.one(_TOKEN, of_token=parts[1])
    # An unknown id costs what a wrong secret costs.
    kept = "0" * 64 if row is None else row.secret_sha256
    right = hmac.compare_digest(_digest(parts[2]), kept)
    if row is None or not right or row.revoked_us is not None:
        raise Unauthenticated(*_UNKNOWN)
    if (row.expires_us is not None and row.expires_us <= tx.now_us) or row.uses_left == 0:
        raise Unauthenticated(*_UNKNOWN)
    scopes = frozenset(row.scopes.split())
    return Token(row.id, row.subject_kind, row.subject, scopes, row.expires_us)


_TOKEN = Statement(sa.select(tokens).where(tokens.c.id == sa.bindparam("of_token")))


def use_token(tx: Transaction, text: str) -> Token:
    """Check a token and take one of its uses, if they are counted; for enrolment."""
    token = check_token(tx, text)
    left = sa.case((tokens.c.uses_left.is_(None), None), else_=tokens.c.uses_left - 1)
    done = tx.connection.execute(
        tokens.update()
        .where(
            tokens.c.id == token.id, sa.or_(tokens.c.uses_left.is_(None), tokens.c.uses_left > 0)
        )
        .values(uses_left=left, used_us=tx.now_us)
    )
    if not done.rowcount:
        raise Unauthenticated(*_UNKNOWN)
    return token


def revoke_token(tx: Transaction, identity: str) -> None:
    """The token is worth nothing from here on; doing it twice is doing it once."""
    done = tx.connection.execute(
        tokens.update()
        .where(tokens.c.id == identity)
        .values(revoked_us=sa.func.coalesce(tokens.c.revoked_us, tx.now_us))
    )
    if not done.rowcount:
        raise NotFound(f"there is no token {identity}", "see what there is: outboard tokens list")
    tx.changed("token", identity)


def list_tokens(tx: Transaction, subject: tuple[str, str] | None = None) -> list[dict[str, object]]:
    """What is known of every token, or of one subject's: never the secret's hash."""
    shown = [column for column in tokens.c if column.name != "secret_sha256"]
    statement = sa.select(*shown).order_by(tokens.c.created_us, tokens.c.id)
    if subject is not None:
        statement = statement.where(
            tokens.c.subject_kind == subject[0], tokens.c.subject == subject[1]
        )
    return [dict(row) for row in tx.connection.execute(statement).mappings()]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
