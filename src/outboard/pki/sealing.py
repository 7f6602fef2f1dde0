"""Seals the nodes' keys for the ledger: who copies the database alone has none of them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from outboard.errors import ConfigurationError

KEY_BYTES = 32
_NONCE_BYTES = 12


class SealingKey:
    """AES-256-GCM under a key that all controllers of a pool have, and the database has not."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, node: str, secret: bytes) -> bytes:
        """The secret's sealed form, of use for that node's row alone."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, node.encode())

    def open(self, node: str, sealed: bytes) -> bytes:
        """The secret; raises `ConfigurationError` if this is not the key, or not that node's."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], node.encode())
        except (InvalidTag, ValueError) as error:
            raise ConfigurationError(
                f"the key of node {node} cannot be opened: it was sealed with another pool key",
                "put the pool's own pool.key back into the controller's state folder, or enrol the"
                " node again: outboard join TOKEN",
            ) from error
