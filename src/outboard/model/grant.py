"""Grants: what an agent verifies offline, and the data plane's key that follows from one.

SPDX-License-Identifier: Apache-2.0

Text: `BASE64URL(payload).BASE64URL(signature)`, unpadded, in the one spelling that each has.
Signed with Ed25519 (`outboard.pki.signing`); where controller and agent are one process, as in the
embedded pool, with an HMAC under a key that never leaves it. The grant itself is no secret: the
data plane's key is HKDF-SHA256 (RFC 5869) of the node's key and the grant's hash.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any, Protocol

from outboard.errors import Refusal
from outboard.model.request import GrantedDevice
from outboard.model.ticket import grant_part, ticket_key

VERSION = 1
LIFETIME_S = 600

# Names what is signed, so that no other message of the same key can pass for a grant.
_PURPOSE = b"outboard grant 1\n"
_NEXT = "start the program in a session that lives: outboard run -n 1 -- COMMAND"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a grant says. `expires_unix` limits new connections, not those that exist."""

    session: str
    allocation: str
    epoch: int
    node: str
    devices: tuple[GrantedDevice, ...]
    uid: int
    expires_unix: int

    def payload(self) -> bytes:
        return json.dumps(
            {
                "version": VERSION,
                "session": self.session,
                "allocation": self.allocation,
                "epoch": self.epoch,
                "node": self.node,
                "devices": [[device.index, device.share_bytes] for device in self.devices],
                "uid": self.uid,
                "expires": self.expires_unix,
            },
            separators=(",", ":"),
        ).encode()


class Signer(Protocol):
    """What a controller makes signatures with."""

    def sign(self, message: bytes) -> bytes:
        """The signature of a message."""


class Verifier(Protocol):
    """What an agent checks signatures with."""

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether a controller of this pool made the signature, for this message."""


class HmacSigner:
    """Signer and verifier of a controller and an agent that share a process, and so a key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, message: bytes) -> bytes:
        return hmac.digest(self._key, message, "sha256")

    def verify(self, message: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(self.sign(message), signature)


def seal(grant: Grant, signer: Signer) -> str:
    """The grant's text."""
    payload = grant.payload()
    return f"{_encode(payload)}.{_encode(signer.sign(_PURPOSE + payload))}"


def unseal(text: str, verifier: Verifier) -> Grant:
    """The grant behind a grant's or ticket's text; raises `Refusal` with code `grant`.

    Expiry and epoch are the caller's to judge: they need a clock and a memory.
    """
    head, _, tail = grant_part(text).partition(".")
    try:
        payload, signature = _decode(head), _decode(tail)
    except ValueError:
        raise Refusal("grant", "the grant is not in a grant's form", _NEXT) from None
    if not verifier.verify(_PURPOSE + payload, signature):
        raise Refusal("grant", "the grant was not signed by this pool", _NEXT)
    try:
        return _grant_from(json.loads(payload))
    except (ValueError, KeyError, TypeError):
        # Signed, and still not understood: a controller of another release.
        raise Refusal(
            "version",
            "the grant is of a release that this server does not know",
            "install the same release on the controller and on its GPU servers",
        ) from None


def data_plane_key(node_key: bytes, text: str) -> bytes:
    """The 32 bytes that client and agent both have: HKDF of the node's key, bound to the grant.

    `text` is the grant's, or that of a ticket, whose key follows from its grant's.
    """
    grant = grant_part(text)
    salt = hashlib.sha256(grant.encode()).digest()
    extracted = hmac.digest(salt, node_key, "sha256")
    key = hmac.digest(extracted, b"outboard data plane 1\x01", "sha256")
    return key if text == grant else ticket_key(key, text)


def _grant_from(record: dict[str, Any]) -> Grant:
    if record["version"] != VERSION:
        raise ValueError("another version")
    node = record["node"]
    return Grant(
        session=record["session"],
        allocation=record["allocation"],
        epoch=record["epoch"],
        node=node,
        devices=tuple(GrantedDevice(node, index, share) for index, share in record["devices"]),
        uid=record["uid"],
        expires_unix=record["expires"],
    )


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    if not text.isascii():
        raise ValueError("not ASCII")
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _encode(data) != text:
        raise ValueError("not the one spelling of these bytes")
    return data
