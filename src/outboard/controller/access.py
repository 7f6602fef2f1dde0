"""Authentication: bearer tokens, default deny, and a brake on who guesses.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import sqlalchemy as sa
from fastapi import Request

from outboard.controller.service import Service
from outboard.errors import Forbidden, RateLimited, Unauthenticated
from outboard.ledger.schema import users
from outboard.ledger.statements import Statement
from outboard.ledger.tokens import Token, check_token
from outboard.ledger.transaction import Transaction

PUBLIC_PATHS = frozenset(("/healthz", "/readyz", "/v1/ca", "/v1/enrol"))
_KEPT_S = 300.0
_LATEST_NEWS_S = 5.0
_MOST_TOKENS = 10_000
_MOST_ADDRESSES = 10_000


class Brake:
    """So many attempts per address: `burst` at once, then `per_s`."""

    def __init__(
        self, burst: float = 20.0, per_s: float = 2.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst, self._per_s, self._clock = burst, per_s, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def attempt(self, address: str) -> None:
        """Count one attempt; raises `RateLimited` if there were too many."""
        now = self._clock()
        left, at = self._left.pop(address, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_s)
        self._left[address] = (max(0.0, left - 1), now)
        while len(self._left) > _MOST_ADDRESSES:
            self._left.popitem(last=False)
        if left < 1:
            raise RateLimited("too many attempts without a token", "wait a minute")


class Access:
    """Finds out who calls. Tokens that held are taken for good for some minutes, so that every
    call does not cost a read, as long as the ledger's feed would tell of a change: a revoked one is
    out at once on the controller that revoked it, and with the feed's next news on others."""

    def __init__(self, service: Service, brake: Brake | None = None) -> None:
        self._service = service
        service.on_accounts = self.forget
        self.brake = brake or Brake()
        self._known: OrderedDict[str, tuple[Token, float]] = OrderedDict()
        self._forgotten = 0

    async def authenticate(self, request: Request) -> Token:
        """The token of a request; raises `Unauthenticated`."""
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            self._attempt(request)
            raise Unauthenticated("this needs a token", "sign in: outboard login URL")
        known = self._known.get(text)
        now_s = time.monotonic()
        if known is not None and now_s < min(known[1], self._service.fed_s + _LATEST_NEWS_S):
            return known[0]
        forgotten = self._forgotten
        try:
            token, kept_s = await self._service.glance(lambda tx: _check(tx, text))
        except Unauthenticated:
            self._attempt(request)
            raise
        if forgotten == self._forgotten:  # else it may have been revoked since it was read
            self._known[text] = (token, now_s + kept_s)
        while len(self._known) > _MOST_TOKENS:
            self._known.popitem(last=False)
        return token

    def forget(self) -> None:
        """A token or a user has changed: check everything again."""
        self._known.clear()
        self._forgotten += 1

    def _attempt(self, request: Request) -> None:
        self.brake.attempt(request.client.host if request.client else "")


def _check(tx: Transaction, text: str) -> tuple[Token, float]:
    """The token behind a text, and for how many seconds it may be taken for good."""
    token = check_token(tx, text)
    if token.subject_kind == "user":
        row = tx.one(_USER, name=token.subject)
        if row is None or row.disabled:
            raise Forbidden(f"user {token.subject} may not use this pool", "ask the administrator")
    kept_s = _KEPT_S
    if token.expires_us is not None:
        kept_s = min(kept_s, (token.expires_us - tx.now_us) / 1_000_000)
    return token, kept_s


_USER = Statement(sa.select(users.c.disabled).where(users.c.name == sa.bindparam("name")))
