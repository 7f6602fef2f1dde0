"""What the API answers about requests and grants, with the session file that makes them usable.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from outboard.controller.actor import Actor
from outboard.controller.service import Service, SessionMaker
from outboard.errors import NotFound, SessionEnded, SessionIdle
from outboard.ledger.grants import Granted, describe, granted_of
from outboard.ledger.idleness import REASON, judge
from outboard.ledger.requests import Ask
from outboard.ledger.schema import leases
from outboard.ledger.statements import Statement
from outboard.ledger.transaction import Transaction
from outboard.moments import iso

RENEWALS_OF_A_LEASE = 6


class Answers:
    """Builds answers. `held` says what a session's programs hold, as its agents reported it."""

    def __init__(
        self,
        service: Service,
        maker: SessionMaker,
        held: Callable[[str], list[int] | None],
    ) -> None:
        self._service = service
        self._maker = maker
        self.held = held

    @property
    def renew_every_s(self) -> float:
        """How often a holder is to renew: 30 s of 180, and soon enough to pick its grant up."""
        terms = self._service.terms
        return min(terms.lease_us / RENEWALS_OF_A_LEASE, terms.pickup_us / 3) / 1_000_000

    async def granted(self, made: Granted) -> dict[str, Any]:
        """A grant; raises `NotFound` if it has ended since."""
        return await self._service.glance(lambda tx: self.of_grant(tx, made))

    def of_grant(self, tx: Transaction, made: Granted) -> dict[str, Any]:
        """The same in a transaction, which may be the one that granted it."""
        if made.state != "active":
            raise NotFound(
                f"session {made.session} has ended", "ask again: outboard run -n 1 -- COMMAND"
            )

        return self._session(tx, made)

    async def session(self, row: sa.Row[tuple[object, ...]]) -> dict[str, Any]:
        """An active session's file with fresh grants."""

        def read(tx: Transaction) -> dict[str, Any]:
            return self._session(tx, granted_of(tx, str(row.request)))

        return await self._service.glance(read)

    def require_active(self, row: sa.Row[tuple[object, ...]]) -> None:
        """Raises for a session that is ending or over: `SessionEnded` if somebody ended it, whose
        holder must not begin the next one by itself, `NotFound` if a rule did
        (`SessionIdle` if that was a limit of idleness)."""
        if row.state != "active" or row.allocation is None:
            if row.ended_by:
                own = row.ended_by in (f"user:{row.user_name}", f"host:{row.host}")
                who = "its owner" if own else "an administrator"
                raise SessionEnded(
                    f"session {row.id} was ended by {who}: {row.reason}",
                    "ask who ended it; then start it again",
                )
            over = SessionIdle if row.reason.startswith(REASON) else NotFound
            raise over(
                f"session {row.id} is over: {row.reason or row.state}",
                "start a new one: outboard run -n 1 -- COMMAND",
            )

    def asked(self, ask: Ask) -> dict[str, Any]:
        """A request that has no grant."""
        request_id = ask.request.id
        standing = self._service.standings.get(request_id)
        return {
            "request": request_id,
            "state": ask.state,
            "position": standing.position if standing else None,
            "reason": self.reason(request_id, ask),
            "starts": iso(standing.starts_us) if standing else None,
        }

    def reason(self, request_id: str, ask: Ask) -> str:
        """Why a request waits, or ended without a grant."""
        return ask.reason or self._service.reason(request_id)

    def queue(self, asks: Sequence[Ask], actor: Actor) -> list[dict[str, Any]]:
        """The queue as one may see it, next first."""
        listed = []
        for ask in asks:
            request = ask.request
            own = actor.sees_all or request.user == actor.user
            listed.append(
                {
                    **self.asked(ask),
                    "user": request.user,
                    "gpus": request.gpus,
                    "share_millionths": request.share.millionths,
                    "share_bytes": request.share.amount_bytes,
                    "priority": request.priority,
                    "since": iso(ask.created_us),
                    "name": request.name if own else "",
                    "program": request.program if own else "",
                }
            )
        return sorted(listed, key=lambda one: (one["position"] or 1 << 30, one["since"]))

    def _session(self, tx: Transaction, made: Granted) -> dict[str, Any]:
        content, expires_unix = self._maker.session_file(tx, made)
        rows = describe(tx, made)
        return {
            "session": content.to_json(),
            "request": made.request,
            "state": "granted",
            "grant_expires_unix": expires_unix,
            "renew_every_s": self.renew_every_s,
            "lease_s": self._service.terms.lease_us / 1_000_000,
            "ends_s": None
            if made.end_by_us is None
            else max(0, made.end_by_us - tx.now_us) / 1_000_000,
            "programs": _programs(tx, made),
            "notice": _notice(tx, made),
            "allocation": made.allocation,
            "epoch": made.epoch,
            "software": any(row.software for row in rows.values()),
            "total_bytes": [rows[one.node, one.index].total_bytes for one in made.devices],
        }


def _programs(tx: Transaction, made: Granted) -> int:
    """How many programs the agents reported; none of what was granted just now."""
    lease = None if _is_new(tx, made) else tx.one(_LEASE, of_allocation=made.allocation)
    return lease.programs if lease else 0


def _notice(tx: Transaction, made: Granted) -> str:
    """What the session's holder should be told now; nothing of what was granted just now."""
    if _is_new(tx, made):
        return ""
    return next((one.notice for one in judge(tx, made.allocation)), "")


def _is_new(tx: Transaction, made: Granted) -> bool:
    return made.started_us >= tx.now_us


_LEASE = Statement(
    sa.select(leases.c.programs).where(leases.c.allocation == sa.bindparam("of_allocation"))
)
