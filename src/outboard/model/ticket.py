"""Tickets: a service's leave for one process, made and verified offline.

SPDX-License-Identifier: Apache-2.0

A service holds a grant and its key and shares neither. For each process that asks, it makes a
ticket, `GRANT.BASE64URL(payload)`, whose key is HMAC-SHA256 of the grant's key over the ticket's
text. So a connection that proves that it has the ticket's key proves that the holder of the grant
wrote the payload, and nobody can get from a ticket to the grant's key or to another ticket.
Standard library alone: the service makes these, the agent reads them.
"""

from __future__ import annotations

import base64
import hmac
import json
import os

from outboard.errors import Refusal

VERSION = 1
LIFETIME_S = 60
_PURPOSE = b"outboard ticket 1\n"
_NEXT = "run the program again"


class Ticket:
    """What a ticket says: whose process it is for, until when it may be used, and its own name."""

    def __init__(self, uid: int, pid: int, expires_unix: int, nonce: str) -> None:
        self.uid = uid
        self.pid = pid
        self.expires_unix = expires_unix
        self.nonce = nonce


def issue(grant: str, grant_key: bytes, uid: int, pid: int, expires_unix: int) -> tuple[str, bytes]:
    """(text, key) of a new ticket for one process."""
    payload = {
        "version": VERSION,
        "uid": uid,
        "pid": pid,
        "expires": expires_unix,
        "nonce": os.urandom(16).hex(),
    }
    encoded = base64.urlsafe_b64encode(json.dumps(payload, separators=(",", ":")).encode())
    text = f"{grant}.{encoded.rstrip(b'=').decode()}"
    return text, ticket_key(grant_key, text)


def ticket_key(grant_key: bytes, text: str) -> bytes:
    """The key of a ticket, from the key of the grant that it begins with."""
    return hmac.digest(grant_key, _PURPOSE + text.encode(), "sha256")


def grant_part(text: str) -> str:
    """The grant's text in a grant or a ticket."""
    return ".".join(text.split(".", 2)[:2])


def ticket_part(text: str) -> Ticket | None:
    """The ticket in a text, None if it is a plain grant; raises `Refusal` if it cannot be read.

    Nothing of it is proven before the connection's proof is.
    """
    parts = text.split(".", 2)
    if len(parts) < 3:
        return None
    try:
        record = json.loads(base64.urlsafe_b64decode(parts[2] + "=" * (-len(parts[2]) % 4)))
        numbers = [record[name] for name in ("version", "uid", "pid", "expires")]
        nonce = record["nonce"]
        if not all(isinstance(number, int) for number in numbers) or not isinstance(nonce, str):
            raise ValueError("not numbers")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refusal("grant", "the ticket is not in a ticket's form", _NEXT) from None
    version, uid, pid, expires_unix = numbers
    if version != VERSION:
        raise Refusal(
            "version",
            f"the ticket is of version {version}, this server reads version {VERSION}",
            "install the same release on both machines",
        )
    return Ticket(uid, pid, expires_unix, nonce)
