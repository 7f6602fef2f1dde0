"""Decides: grants requests in the order they came, keeps leases, ends sessions.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from outboard.controller.ledger import Ledger
from outboard.controller.rehearsal import Rehearsal
from outboard.errors import NotFound, PoolBusy, PoolEnding, SessionEnded, Stale, WaitedTooLong
from outboard.model.grant import Grant, Signer, data_plane_key, seal
from outboard.model.request import Request, Session, SessionState
from outboard.model.session_file import SessionDevice, SessionFile, SessionNode
from outboard.scheduler.placement import Busy, place
from outboard.units import format_duration

log = logging.getLogger("outboard.controller")

_MOST_REMEMBERED_ENDS = 256


class Node(Protocol):
    """What the controller needs of a GPU server's agent."""

    async def end_session(
        self, session_id: str, allocation: str, reason: str, remember_s: float
    ) -> None:
        """Refuse the session's programs from now on and return once its workers are gone."""

    def held_bytes(self, session_id: str) -> list[int] | None:
        """What its programs hold of each device; None where it is not known."""


@dataclass(slots=True)
class Waiting:
    """A request in the queue; `granted` is resolved, or cancelled by a client that left."""

    request: Request
    granted: asyncio.Future[Session]
    reason: str = ""


class Controller:
    """One pool's decisions. All methods run on one event loop, so each is a transaction."""

    def __init__(
        self,
        ledger: Ledger,
        agent: Node,
        node_key: bytes,
        signer: Signer,
        grant_lifetime_s: float,
        lease_s: float,
        on_change: Callable[[], None],
    ) -> None:
        self.ledger = ledger
        self.ending = False
        self._agent = agent
        self._node_key = node_key
        self._signer = signer
        self._grant_lifetime_s = grant_lifetime_s
        self.lease_s = lease_s
        self._ended_by: deque[tuple[str, str]] = deque(maxlen=_MOST_REMEMBERED_ENDS)
        self._queue: deque[Waiting] = deque()
        self._ends: dict[str, asyncio.Task[None]] = {}
        self._on_change = on_change

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def in_use(self) -> bool:
        return bool(self.ledger.sessions or self._queue)

    async def request(self, request: Request) -> Session:
        """Grant a request, waiting as long as it allows.

        Raises a `RequestError` that no waiting would cure at once, `PoolBusy` for a request that
        does not wait, `WaitedTooLong` for one that waited in vain.
        """
        if self.ending:
            raise PoolEnding("the pool is ending", "run the command again")
        before = self.ledger.session_of_request(request.id)
        if before is not None:
            before.lease.held = True
            return before
        place(self.ledger.device_states(), request.gpus, request.share)
        waiting = Waiting(request, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        try:
            self._serve_queue()
            async with asyncio.timeout(request.wait_s):
                return await waiting.granted
        except TimeoutError:
            if waiting.granted.done() and not waiting.granted.cancelled():
                return waiting.granted.result()  # granted in the moment that its time was up
            if request.wait_s:
                raise WaitedTooLong(
                    f"no GPU within {format_duration(request.wait_s)}: {waiting.reason}",
                    "wait longer (--wait 1h), ask for less (-p 0.25), or see who has them:"
                    " outboard sessions",
                ) from None
            raise PoolBusy(
                f"the pool is busy: {waiting.reason}",
                "wait for it (leave --no-wait out), ask for less (-p 0.25), or see who has it:"
                " outboard sessions",
            ) from None
        except asyncio.CancelledError:
            # Its client left. A grant that was already on its way has nobody to hold it.
            if waiting.granted.done() and not waiting.granted.cancelled():
                self.holder_lost(waiting.granted.result().id)
            raise
        finally:
            if waiting in self._queue:
                self._queue.remove(waiting)
                self._serve_queue()
            self._on_change()

    def rehearse(self, request: Request) -> Rehearsal:
        """What would become of a request now; raises what `request` would raise at once."""
        outcome = place(self.ledger.device_states(), request.gpus, request.share)
        position = len(self._queue) + 1
        if isinstance(outcome, Busy):
            return Rehearsal(reason=outcome.reason, position=position)
        if self._queue:
            reason = f"{len(self._queue)} requests wait, first come, first served"
            return Rehearsal(reason=reason, position=position)
        return Rehearsal(outcome.devices)

    def session_file(self, session: Session) -> tuple[SessionFile, int]:
        """The session's file with a fresh grant, and when that expires (unix seconds)."""
        expires_unix = int(time.time() + self._grant_lifetime_s)
        allocation = session.allocation
        node = self.ledger.nodes[allocation.devices[0].node]
        grant = seal(
            Grant(
                session=session.id,
                allocation=allocation.id,
                epoch=allocation.epoch,
                node=node.name,
                devices=allocation.devices,
                uid=session.request.uid,
                expires_unix=expires_unix,
            ),
            self._signer,
        )
        devices = []
        for granted in allocation.devices:
            device = self.ledger.device(granted)
            devices.append(
                SessionDevice(0, device.index, device.uuid, device.name, granted.share_bytes)
            )
        content = SessionFile(
            session.id,
            nodes=[SessionNode(node.name, node.address, node.tls)],
            devices=devices,
            grant=grant,
            key=data_plane_key(self._node_key, grant).hex(),
        )
        return content, expires_unix

    def active_session(self, session_id: str) -> Session:
        """The session of that name; raises `NotFound` if it is unknown or ending, `SessionEnded`
        if an administrator ended it."""
        for ended, reason in self._ended_by:
            if ended == session_id:
                raise SessionEnded(
                    f"session {session_id} was ended by an administrator: {reason}",
                    "ask who runs the pool; then start it again",
                )
        session = self.ledger.sessions.get(session_id)
        if session is None or session.state is not SessionState.ACTIVE:
            raise NotFound(
                f"there is no session {session_id}", "see what there is: outboard sessions"
            )
        return session

    def renew(self, session_id: str, holder: str) -> Session:
        """The session, whose lease begins anew if a secret holds it; raises `Stale` for another
        holder's."""
        session = self.active_session(session_id)
        if session.lease.holder_sha256:
            _check_holder(session, holder)
            self._hold(session)
        return session

    def take_over(self, session_id: str, holder: str, holder_sha256: str) -> Session:
        """A new holder shows the old one's secret: the epoch rises, the old one is fenced off.

        Programs that run go on.
        """
        session = self.active_session(session_id)
        _check_holder(session, holder)
        allocation = session.allocation
        session.allocation = replace(allocation, epoch=allocation.epoch + 1)
        session.lease.holder_sha256 = holder_sha256
        self._hold(session)
        log.info("session %s: taken over, epoch %d", session.id, session.allocation.epoch)
        return session

    async def end_by_administrator(self, session: Session, reason: str) -> None:
        """End a session so that its holder is told, and does not begin another by itself."""
        self._ended_by.append((session.id, reason))
        await self.end(session, f"ended by an administrator: {reason}")

    async def end(self, session: Session, reason: str) -> None:
        """End a session and return once its memory is free for others."""
        await asyncio.shield(self._begin_end(session, reason))

    def holder_lost(self, session_id: str) -> None:
        """Its launcher is gone: the session lives on for as long as a program is connected."""
        session = self.ledger.sessions.get(session_id)
        if session is None or session.state is not SessionState.ACTIVE:
            return
        session.lease.held = False
        log.info(
            "session %s: its launcher is gone, %d programs connected",
            session_id,
            session.lease.programs,
        )
        self._end_if_abandoned(session)

    def programs_changed(self, session_id: str, count: int) -> None:
        """The agent's news: how many programs of a session are connected."""
        session = self.ledger.sessions.get(session_id)
        if session is not None:
            session.lease.programs = count
            self._end_if_abandoned(session)

    def held_bytes(self, session: Session) -> list[int] | None:
        """What the session's programs hold of each device, as their workers say."""
        return self._agent.held_bytes(session.id)

    async def close(self, reason: str) -> None:
        """Take no more requests and end every session."""
        self.ending = True
        for waiting in list(self._queue):
            if not waiting.granted.done():
                waiting.granted.set_exception(PoolEnding("the pool is ending", "run it again"))
        ends = [self._begin_end(session, reason) for session in list(self.ledger.sessions.values())]
        if ends:
            await asyncio.wait(ends)

    def _serve_queue(self) -> None:
        """Grant from the front. The first that does not fit holds up those behind it: otherwise
        small requests would starve large ones for ever."""
        while self._queue:
            waiting = self._queue[0]
            if waiting.granted.done():
                self._queue.popleft()
                continue
            request = waiting.request
            outcome = place(self.ledger.device_states(), request.gpus, request.share)
            if isinstance(outcome, Busy):
                waiting.reason = outcome.reason
                break
            self._queue.popleft()
            session = self.ledger.grant(request, outcome.devices, time.time())
            log.info(
                "session %s: %s for uid %d, pid %d: %s",
                session.id,
                ", ".join(f"{d.share_bytes} bytes of GPU {d.index}" for d in outcome.devices),
                request.uid,
                request.pid,
                request.program,
            )
            if session.lease.holder_sha256:
                self._hold(session)
            waiting.granted.set_result(session)
        for behind in list(self._queue)[1:]:
            behind.reason = f"{len(self._queue) - 1} requests wait, first come, first served"

    def _hold(self, session: Session) -> None:
        """Begin the lease of a holder with a secret anew."""
        loop = asyncio.get_running_loop()
        first = session.lease.expires_s == 0.0
        session.lease.held = True
        session.lease.expires_s = loop.time() + self.lease_s
        if first:
            loop.call_at(session.lease.expires_s, self._look_at_lease, session)

    def _look_at_lease(self, session: Session) -> None:
        """End what was not renewed, unless programs are connected; else look again later."""
        if session.state is not SessionState.ACTIVE:
            return
        loop = asyncio.get_running_loop()
        again_s = session.lease.expires_s
        if again_s <= loop.time():
            if session.lease.held:
                log.info("session %s: its holder has not renewed it", session.id)
            session.lease.held = False
            again_s = loop.time() + self.lease_s
            self._end_if_abandoned(session)
        loop.call_at(again_s, self._look_at_lease, session)

    def _end_if_abandoned(self, session: Session) -> None:
        if not session.lease.alive and session.state is SessionState.ACTIVE:
            self._begin_end(session, "its launcher and its programs are gone")

    def _begin_end(self, session: Session, reason: str) -> asyncio.Task[None]:
        """The task that ends the session; one per session, however many ask."""
        if session.id not in self._ends:
            session.state = SessionState.ENDING
            task = asyncio.get_running_loop().create_task(self._end(session, reason))
            self._ends[session.id] = task
        return self._ends[session.id]

    async def _end(self, session: Session, reason: str) -> None:
        log.info("session %s ends: %s", session.id, reason)
        await self._agent.end_session(
            session.id, session.allocation.id, reason, 2 * self._grant_lifetime_s
        )
        self.ledger.forget(session)
        del self._ends[session.id]
        log.info("session %s is over", session.id)
        self._serve_queue()
        self._on_change()


def _check_holder(session: Session, holder: str) -> None:
    digest = hashlib.sha256(holder.encode()).hexdigest()
    if not hmac.compare_digest(digest, session.lease.holder_sha256):
        raise Stale(
            f"session {session.id} has another holder: it was taken over",
            "stop this one; the other goes on with the session",
        )
