"""Who calls, and what that allows.

SPDX-License-Identifier: Apache-2.0

Scopes: `use` asks for GPUs and handles one's own sessions, `read` sees everybody's, `admin` does
everything, `agent` is a node's, `service` a client host's service, `enrol` a join token's.
"""

from __future__ import annotations

from dataclasses import dataclass

from outboard.errors import Forbidden, NotFound
from outboard.ledger.tokens import Token


@dataclass(frozen=True, slots=True)
class Actor:
    """The bearer of a token. `user` is whom it acts for; empty for a node or a host alone."""

    token: Token

    @property
    def name(self) -> str:
        return f"{self.token.subject_kind}:{self.token.subject}"

    @property
    def user(self) -> str:
        return self.token.subject if self.token.subject_kind == "user" else ""

    @property
    def host(self) -> str | None:
        return self.token.subject if self.token.subject_kind == "host" else None

    @property
    def sees_all(self) -> bool:
        return bool(self.token.scopes & {"read", "admin"})

    def has(self, scope: str) -> bool:
        return scope in self.token.scopes or "admin" in self.token.scopes

    def require(self, scope: str) -> None:
        """Raises `Forbidden` unless the token has the scope."""
        if not self.has(scope):
            raise Forbidden(
                f"this needs a token of scope {scope}",
                f"ask an administrator: outboard tokens create --scope {scope}",
            )

    def owns(self, user: str, host: str | None) -> bool:
        """Whether something of this user, asked for from this host, is the caller's to change."""
        if self.has("admin"):
            return True
        if self.host is not None:
            return host == self.host
        return bool(self.user) and user == self.user

    def sees(self, user: str, host: str | None) -> bool:
        """Whether the caller may look at it."""
        return self.sees_all or self.owns(user, host)

    def require_sight(self, allowed: bool, what: str) -> None:
        """Raises `NotFound` for what is somebody else's: that it exists is no one's business."""
        if not allowed:
            raise NotFound(f"there is no {what}", "see what there is: outboard sessions")
