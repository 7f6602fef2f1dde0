"""Ed25519 signatures of grants: a controller's private key, and the public keys that agents know.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PUBLIC_KEY_BYTES = 32


class SigningKey:
    """One controller's own key. Its private half never leaves that controller's state folder."""

    def __init__(self, seed: bytes) -> None:
        """`seed` is the 32 bytes of RFC 8032's private key."""
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def seed(self) -> bytes:
        return self._key.private_bytes_raw()

    @property
    def public(self) -> bytes:
        """The 32 bytes that agents need."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


class KnownKeys:
    """The public keys of a pool's controllers: what any of them signed holds."""

    def __init__(self, public_keys: Iterable[bytes] = ()) -> None:
        self._keys: dict[bytes, Ed25519PublicKey] = {}
        self.replace(public_keys)

    def replace(self, public_keys: Iterable[bytes]) -> None:
        """Know these and no others; raises `ValueError` for what is no key."""
        self._keys = {key: Ed25519PublicKey.from_public_bytes(key) for key in public_keys}

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._keys)

    def verify(self, message: bytes, signature: bytes) -> bool:
        return any(_holds(key, message, signature) for key in self._keys.values())


def _holds(key: Ed25519PublicKey, message: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
