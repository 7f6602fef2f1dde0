"""The agent: admits programs to the sessions that their grants name, and ends sessions.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence

from outboard.agent.admission import Admission, ended
from outboard.agent.preface import Preface
from outboard.agent.share_page import SharePage
from outboard.agent.worker import Worker
from outboard.agent.workers import Workers
from outboard.errors import Refusal, WorkerFailed
from outboard.model.grant import Grant
from outboard.model.node import Device

log = logging.getLogger("outboard.agent")


class AgentSession:
    """A session on this node: its share page and the workers of its programs."""

    def __init__(self, grant: Grant) -> None:
        self.id = grant.session
        self.epoch = grant.epoch
        self.devices = grant.devices
        self.page = SharePage([device.share_bytes for device in grant.devices])
        self.workers: dict[Worker, int] = {}
        self.ending = False
        self.drained = asyncio.Event()

    def follow(self, grant: Grant) -> None:
        """Go on under a newer epoch: the same devices, with what is granted of them now."""
        if [device.index for device in grant.devices] != [d.index for d in self.devices]:
            raise Refusal(
                "busy",
                "the session has other GPUs than when its programs started",
                "end the programs that still run in it, then start this one again",
            )
        self.epoch = grant.epoch
        self.devices = grant.devices
        self.page.set_limits([device.share_bytes for device in grant.devices])


class Agent:
    """One node's sessions. `on_programs` is told a session's number of programs as it changes."""

    def __init__(self, admission: Admission, devices: Sequence[Device]) -> None:
        self._admission = admission
        self._context_bytes = {device.index: device.context_bytes for device in devices}
        self._sessions: dict[str, AgentSession] = {}
        self.workers: Workers
        self.on_programs: Callable[[str, int], None] = _tell_nobody

    async def admit(self, preface: Preface, connection: socket.socket) -> None:
        """Hand a verified connection to a worker; raises `Refusal`. The caller closes its copy."""
        session = self._session_of(self._admission.grant_of(preface, time.time()))
        if preface.purpose == "bulk":
            self._admit_bulk(session, preface, connection)
            return
        worker = await self.workers.take(preface.protocol, preface.release)
        slot = None if session.ending else session.page.take_slot()
        if slot is None:
            self.workers.give_back(worker)
            raise ended() if session.ending else _full()
        # The flag belongs to the connection, not to the descriptor: the worker gets it as it is.
        connection.setblocking(True)
        try:
            devices = [(device, self._context_bytes[device.index]) for device in session.devices]
            worker.claim(session.id, devices, slot, session.page.descriptor, connection)
        except WorkerFailed as error:
            session.page.return_slot(slot)
            worker.kill()
            raise Refusal("no_worker", error.message, "run the program again") from error
        session.workers[worker] = slot
        session.drained.clear()
        log.info("session %s: worker %d has a program", session.id, worker.pid)
        self.on_programs(session.id, len(session.workers))

    async def end_session(
        self, session_id: str, allocation: str, reason: str, remember_s: float
    ) -> None:
        """Refuse its programs from now on, end its workers, return once they are gone.

        `remember_s` is for how long grants of the allocation may still be about.
        """
        session = self._sessions.get(session_id)
        now_unix = time.time()
        epoch = session.epoch if session is not None else 0
        self._admission.end(allocation, epoch, now_unix + remember_s, now_unix)
        if session is None:
            return
        session.ending = True
        for worker in list(session.workers):
            worker.end(reason)
        if session.workers:
            await session.drained.wait()
        if self._sessions.pop(session_id, None) is not None:
            session.page.close()

    def worker_exited(self, worker: Worker) -> None:
        """Take back what a reaped worker held."""
        for session in self._sessions.values():
            slot = session.workers.pop(worker, None)
            if slot is None:
                continue
            session.page.return_slot(slot)
            if not session.workers:
                session.drained.set()
            if not session.ending:
                self.on_programs(session.id, len(session.workers))
            return

    def held_bytes(self, session_id: str) -> list[int] | None:
        """What a session's programs hold of each of its devices; None before the first program."""
        session = self._sessions.get(session_id)
        if session is None:
            return None
        return [session.page.held_bytes(number) for number in range(len(session.devices))]

    def _session_of(self, grant: Grant) -> AgentSession:
        session = self._sessions.get(grant.session)
        if session is None:
            session = self._sessions[grant.session] = AgentSession(grant)
        elif grant.epoch > session.epoch:
            session.follow(grant)
        return session

    def _admit_bulk(
        self, session: AgentSession, preface: Preface, connection: socket.socket
    ) -> None:
        for worker in session.workers:
            if worker.id == preface.worker:
                connection.setblocking(True)
                try:
                    worker.bulk(connection)
                except WorkerFailed as error:
                    raise Refusal("no_worker", error.message, "run the program again") from error
                return
        raise Refusal("no_worker", "this session has no such worker", "run the program again")


def _tell_nobody(_session: str, _programs: int) -> None:
    """What an agent does with its news before a controller listens."""


def _full() -> Refusal:
    return Refusal(
        "busy",
        "the session already has as many programs as it can",
        "wait until one of them has ended, or run this one in a session of its own",
    )
