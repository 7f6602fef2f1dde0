"""What a controller does every few seconds: renewals in one write, and the end of what is over.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import logging
import threading
import time

from outboard.errors import OutboardError
from outboard.ledger import allocations, changes, idleness, requests
from outboard.ledger.database import Database
from outboard.ledger.requests import Terms

log = logging.getLogger("outboard.controller.keeper")

_CHANGES_KEPT_US = 3_600_000_000
_FORGET_EVERY_S = 60.0
_FORGOTTEN_AT_ONCE = 500


class Keeper:
    """Collects signs of life and writes them together; ends leases, waits and times that are over.

    `note_…` may be called from any thread; `keep` blocks, and is called again and again.
    """

    def __init__(self, database: Database, terms: Terms, grace_s: float) -> None:
        """`grace_s`: a controller that starts ends no lease before that: renewals that nobody
        took while it was away come first."""
        self._database = database
        self._terms = terms
        self._not_before = time.monotonic() + grace_s
        self._forget_at = time.monotonic() + _FORGET_EVERY_S
        self._lock = threading.Lock()
        self._renewed: set[str] = set()
        self._signs: set[str] = set()

    def note_renewal(self, allocation: str) -> None:
        """The allocation's holder lives."""
        with self._lock:
            self._renewed.add(allocation)

    def note_sign(self, request: str) -> None:
        """The waiting request's client lives."""
        with self._lock:
            self._signs.add(request)

    def keep(self) -> int:
        """Write and end what is due; returns how many allocations began to end."""
        self.flush()
        if time.monotonic() < self._not_before:
            return 0
        self._database.write(lambda tx: requests.give_up(tx, self._terms))
        over = self._database.read(allocations.expired)
        ended = 0
        for name in over:
            ended += self._database.write(lambda tx, name=name: allocations.end_expired(tx, name))  # type: ignore[misc]
        for name, reason in self._database.read(allocations.overdue):
            ended += self._database.write(
                lambda tx, name=name, reason=reason: allocations.begin_end(  # type: ignore[misc]
                    tx, name, allocations.BY_RULE, reason
                )
            )
        ended += self._end_idle()
        if time.monotonic() > self._forget_at:
            self._forget()
            self._forget_at = time.monotonic() + _FORGET_EVERY_S
        return ended

    def _forget(self) -> None:
        """A portion at a time: who waits for the writer comes between."""
        forgotten = _FORGOTTEN_AT_ONCE
        while forgotten == _FORGOTTEN_AT_ONCE:
            forgotten = self._database.write(
                lambda tx: changes.forget_changes(tx, _CHANGES_KEPT_US, _FORGOTTEN_AT_ONCE)
            )

    def _end_idle(self) -> int:
        """Warn the holders of what is idle, and end what stayed so."""
        ended = 0
        for one in self._database.read(idleness.judge):
            name = one.allocation
            if one.to_warn and self._database.write(lambda tx, name=name: idleness.warn(tx, name)):  # type: ignore[misc]
                log.warning("%s", one.notice)
            if one.over and self._database.write(lambda tx, name=name: idleness.end_idle(tx, name)):  # type: ignore[misc]
                log.warning("session %s has ended: %s", one.session, one.reason)
                ended += 1
        return ended

    def flush(self) -> None:
        """One UPDATE for all renewals, one for all signs, since the last time."""
        with self._lock:
            renewed, self._renewed = self._renewed, set()
            signs, self._signs = self._signs, set()
        try:
            if renewed:
                self._database.write(lambda tx: allocations.renew(tx, renewed, {}, self._terms))
            if signs:
                self._database.write(lambda tx: requests.signs(tx, signs))
        except OutboardError:
            with self._lock:  # the next time has them too: no lease ends by a database's absence
                self._renewed |= renewed
                self._signs |= signs
            raise
