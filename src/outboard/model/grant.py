"""Grants: what an agent verifies offline, and the data plane's key that follows from one.

SPDX-License-Identifier: Apache-2.0

Text: `BASE64URL(payload).BASE64URL(signature)`. Where controller and agent are one process, as in
the embedded pool, the signature is an HMAC under a key that never leaves it. The grant itself is
no secret: the data plane's key is HKDF-SHA256 (RFC 5869) of the node's key and the grant's hash.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Protocol

from outboard.errors import Refusal
from outboard.model.request import GrantedDevice

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
    """Makes and checks signatures; the embedded pool's is an HMAC."""

    def sign(self, payload: bytes) -> bytes:
        """The signature of a payload."""

    def verify(self, payload: bytes, signature: bytes) -> bool:
        """Whether the signature is this signer's, compared in constant time."""


class HmacSigner:
    """A signer for a controller and an agent that share a process, and so a key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, b"outboard grant 1\n" + payload, "sha256")

    def verify(self, payload: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(self.sign(payload), signature)


def seal(grant: Grant, signer: Signer) -> str:
    """The grant's text."""
    payload = grant.payload()
    return f"{_encode(payload)}.{_encode(signer.sign(payload))}"


def unseal(text: str, signer: Signer) -> Grant:
    """The grant behind a text whose signature holds; raises `Refusal` with code `grant`.

    Expiry and epoch are the caller's to judge: they need a clock and a memory.
    """
    head, _, tail = text.partition(".")
    try:
        payload, signature = _decode(head), _decode(tail)
    except ValueError:
        raise Refusal("grant", "the grant is not in a grant's form", _NEXT) from None
    if not signer.verify(payload, signature):
        raise Refusal("grant", "the grant was not signed by this pool", _NEXT)
    record = json.loads(payload)
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


def data_plane_key(node_key: bytes, grant: str) -> bytes:
    """The 32 bytes that client and agent both have: HKDF of the node's key, bound to the grant."""
    salt = hashlib.sha256(grant.encode()).digest()
    extracted = hmac.digest(salt, node_key, "sha256")
    return hmac.digest(extracted, b"outboard data plane 1\x01", "sha256")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    if not text.isascii():
        raise ValueError("not ASCII")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
