"""Tokens as people copy them: `ob_<id>_<secret>_<16 hex digits of the authority's hash>`.

SPDX-License-Identifier: Apache-2.0

The last part lets the first contact with a pool know its certificate authority, before any secret
is sent. Standard library alone: the launcher reads tokens.
"""

from __future__ import annotations

import hashlib
import re

from outboard.errors import ConfigurationError

_TEXT = re.compile(r"ob_([0-9a-z]{8,32})_([0-9a-f]{64})_([0-9a-f]{16})")
AUTHORITY_DIGITS = 16


class Token:
    """A token's parts. `secret` is 256 random bits as hex; a ledger keeps its hash alone."""

    def __init__(self, identity: str, secret: str, authority: str) -> None:
        self.id = identity
        self.secret = secret
        self.authority = authority

    def __str__(self) -> str:
        return f"ob_{self.id}_{self.secret}_{self.authority}"

    def __repr__(self) -> str:
        return f"Token({self.id!r}, …)"  # a secret does not belong into a traceback

    @property
    def secret_sha256(self) -> str:
        """What a ledger keeps: the secret is random, so a plain hash is enough."""
        return hash_secret(self.secret)


def parse_token(text: str) -> Token:
    """The token in a text; raises `ConfigurationError` without repeating it."""
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(
            "that is not a token: ob_ID_SECRET_AUTHORITY, 91 characters or more",
            "copy all of it, in one line, as `outboard tokens create` printed it",
        )
    return Token(match[1], match[2], match[3])


def hash_secret(secret: str) -> str:
    """SHA-256 of a token's secret, in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def authority_mark(certificate_der: bytes) -> str:
    """The part of a token that names the authority."""
    return hashlib.sha256(certificate_der).hexdigest()[:AUTHORITY_DIGITS]
