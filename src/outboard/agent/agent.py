"""The agent: admits programs to the sessions that their grants name, and ends sessions.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from outboard.agent.admission import Admission, ended
from outboard.agent.preface import JOINING, Preface
from outboard.agent.records import Records, SessionRecord, WorkerRecord, start_time_of
from outboard.agent.share_page import SharePage
from outboard.agent.usage import EndedUses, Use, monotonic_us
from outboard.agent.worker import Worker
from outboard.agent.workers import Workers
from outboard.errors import Refusal, WorkerFailed
from outboard.model.grant import Grant
from outboard.model.node import Device
from outboard.model.ticket import ticket_part

log = logging.getLogger("outboard.agent")


class AgentSession:
    """A session on this node: its newest grant, its share page, the workers of its programs."""

    def __init__(self, grant: Grant, page: SharePage, started_unix: float) -> None:
        self.grant = grant
        self.page = page
        self.started_unix = started_unix
        self.workers: dict[Worker, int] = {}
        self.uids: dict[Worker, int | None] = {}
        self.user: int | None = None  # that all its workers here run as
        self.ending = False
        self.drained = asyncio.Event()
        self._last_call_us: int | None = None

    @property
    def id(self) -> str:
        return self.grant.session

    def follow(self, grant: Grant) -> None:
        """Go on under a newer grant: the same devices, with what is granted of them now."""
        if [d.index for d in grant.devices] != [d.index for d in self.grant.devices]:
            raise Refusal(
                "busy",
                "the session has other GPUs than when its programs started",
                "end the programs that still run in it, then start this one again",
            )
        self.grant = grant
        self.page.set_limits([device.share_bytes for device in grant.devices])

    def record(self) -> SessionRecord:
        """What the next agent has to know."""
        workers = [
            WorkerRecord(
                worker.id,
                worker.pid,
                worker.start_time,
                slot,
                worker.protocol,
                self.uids.get(worker),
                worker.user,
            )
            for worker, slot in self.workers.items()
        ]
        return SessionRecord(self.grant, self.started_unix, tuple(workers))

    def unused_us(self) -> int | None:
        """How long ago its programs called last; None before the first call."""
        for slot in self.workers.values():
            self._note_call(self.page.use(slot))
        return None if self._last_call_us is None else monotonic_us() - self._last_call_us

    def uses(self) -> dict[str, dict[str, object]]:
        """What a report says of the programs that run, by worker."""
        found = {}
        for worker, slot in self.workers.items():
            use = self.page.use(slot)
            if use is not None:
                found[worker.id] = self._told(worker.id, use, self.uids.get(worker))
        return found

    def close_use(self, worker: str, slot: int, uid: int | None) -> dict[str, object] | None:
        """The last word on a reaped worker's program, before its slot is another's."""
        use = self.page.use(slot)
        if use is None:
            return None
        self._note_call(use)
        return self._told(worker, use.ended(time.time_ns() // 1000), uid)

    def _note_call(self, use: Use | None) -> None:
        if use is not None and use.last_call_us is not None:
            self._last_call_us = max(self._last_call_us or 0, use.last_call_us)

    def _told(self, worker: str, use: Use, uid: int | None) -> dict[str, object]:
        return {
            "session": self.id,
            "allocation": self.grant.allocation,
            "worker": worker,
            # A ticket has the uid from the client's kernel; else it is what the program said.
            "uid": use.uid if uid is None else uid,
            "pid": use.pid,
            "program": use.program,
            "started_us": use.started_us,
            "ended_us": use.ended_us,
            "devices": [
                {"index": device.index, **asdict(did)}
                for device, did in zip(self.grant.devices, use.devices, strict=False)
            ],
        }


class Agent:
    """One node's sessions. `on_programs` is told a session's number of programs as it changes.

    With `records` the workers outlive this process, and `adopt` finds those of the one before.
    """

    def __init__(
        self,
        admission: Admission,
        devices: Sequence[Device],
        records: Records | None = None,
        *,
        protect: bool = False,
    ) -> None:
        """`protect`: workers speak TLS with their clients, by the key that both have."""
        self._admission = admission
        self._protect = protect
        self._context_bytes = {device.index: device.context_bytes for device in devices}
        self._records = records
        self._sessions: dict[str, AgentSession] = {}
        self.workers: Workers
        self.memory_socket = ""  # where programs on this machine share memory; empty: nowhere
        self.on_programs: Callable[[str, int], None] = _tell_nobody
        self.ended_uses = EndedUses()

    @property
    def sessions(self) -> list[AgentSession]:
        return list(self._sessions.values())

    async def admit(self, preface: Preface, connection: socket.socket) -> None:
        """Hand a verified connection to a worker; raises `Refusal`. The caller closes its copy."""
        grant = self._admission.grant_of(preface, time.time())
        if preface.purpose in JOINING:
            self._admit_joining(grant, preface, connection)
            return
        session = self._session_of(grant)
        worker = self.workers.pick(preface.protocol, session.user)
        session.user = worker.user
        await self.workers.take(worker, preface.protocol, preface.release)
        slot = None if session.ending else session.page.take_slot()
        if slot is None:
            self.workers.give_back(worker)
            raise ended() if session.ending else _full()
        # The flag belongs to the connection, not to the descriptor: the worker gets it as it is.
        connection.setblocking(True)
        ticket = ticket_part(preface.grant)
        session.workers[worker] = slot
        session.uids[worker] = None if ticket is None else ticket.uid
        session.drained.clear()
        try:
            # Written before the worker has its client: from then on it may outlive this process.
            self._write_record(session)
            granted = session.grant.devices
            devices = [(device, self._context_bytes[device.index]) for device in granted]
            key = self._key_of(preface)
            worker.claim(
                session.id,
                devices,
                slot,
                session.page.descriptor,
                connection,
                key,
                self.memory_socket,
            )
        except (WorkerFailed, OSError) as error:
            worker.kill()  # its end is noticed, and the slot taken back then
            raise Refusal("no_worker", str(error), "run the program again") from error
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
        epoch = session.grant.epoch if session is not None else 0
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
            if self._records is not None:
                self._records.forget(session_id)

    def adopt(self) -> None:
        """Go on with the sessions of the agent before this one: its workers may have lived on."""
        assert self._records is not None
        for record in self._records.read_all():
            name = record.grant.session
            try:
                page = self._records.open_page(record)
            except OSError as error:
                log.error("session %s has lost its share page: %s", name, error.strerror)
                self._records.forget(name)
                continue
            session = AgentSession(record.grant, page, record.started_unix)
            self._sessions[name] = session
            for known in record.workers:
                self._adopt_worker(session, known)
            self._write_record(session)
            log.info("session %s: %d programs went on", name, len(session.workers))

    def worker_exited(self, worker: Worker) -> None:
        """Take back what a reaped worker held."""
        if not self.workers.has_user(worker.user):
            for session in self._sessions.values():
                if session.user == worker.user:
                    session.user = None  # from now on it may be another session's
        for session in self._sessions.values():
            slot = session.workers.pop(worker, None)
            if slot is None:
                continue
            self._close_slot(session, worker.id, slot, session.uids.pop(worker, None))
            self._write_record(session)
            if not session.workers:
                session.drained.set()
            if not session.ending:
                self.on_programs(session.id, len(session.workers))
            return

    def introduce(self, worker: Worker, asked_for: str) -> None:
        """Connect a worker with another of its own session; of others it learns nothing."""
        neighbour = None
        for session in self._sessions.values():
            if worker in session.workers:
                neighbour = next((w for w in session.workers if w.id == asked_for), None)
        with contextlib.suppress(WorkerFailed):  # one that does not listen is about to end
            if neighbour is None or neighbour is worker:
                worker.introduce(asked_for, None)
                return
            ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with ends[0], ends[1]:
                worker.introduce(asked_for, ends[0])
                neighbour.introduce(None, ends[1])

    def worker_called(self, pid: int, worker_id: str, control: socket.socket) -> bool:
        """A worker whose agent died looks for the next one: False if it is not known here."""
        for session in self._sessions.values():
            for worker in session.workers:
                if worker.id == worker_id and worker.pid == pid:
                    worker.connect(control)
                    return True
        return False

    def held_bytes(self, session_id: str) -> list[int] | None:
        """What a session's programs hold of each of its devices; None before the first program."""
        session = self._sessions.get(session_id)
        return None if session is None else session.page.held_bytes()

    def _session_of(self, grant: Grant) -> AgentSession:
        session = self._sessions.get(grant.session)
        if session is None:
            limits = [device.share_bytes for device in grant.devices]
            page = (
                SharePage.make(limits)
                if self._records is None
                else self._records.new_page(grant.session, limits)
            )
            session = self._sessions[grant.session] = AgentSession(grant, page, time.time())
        elif grant.epoch > session.grant.epoch:
            session.follow(grant)
        return session

    def _adopt_worker(self, session: AgentSession, known: WorkerRecord) -> None:
        try:
            if start_time_of(known.pid) != known.start_time:
                raise ProcessLookupError
            worker = self.workers.adopt(known)
        except OSError:
            self._close_slot(session, known.id, known.slot, known.uid)  # it ended meanwhile
        else:
            session.workers[worker] = known.slot
            session.uids[worker] = known.uid
            session.user = worker.user

    def _close_slot(self, session: AgentSession, worker: str, slot: int, uid: int | None) -> None:
        use = session.close_use(worker, slot, uid)
        if use is not None:
            self.ended_uses.add(worker, use)
        session.page.return_slot(slot)

    def _key_of(self, preface: Preface) -> bytes | None:
        return self._admission.key_of(preface) if self._protect else None

    def _write_record(self, session: AgentSession) -> None:
        if self._records is not None:
            self._records.write(session.record())

    def _admit_joining(self, grant: Grant, preface: Preface, connection: socket.socket) -> None:
        session = self._sessions.get(grant.session)
        for worker in session.workers if session is not None else ():
            if worker.id == preface.worker:
                connection.setblocking(True)
                try:
                    worker.join(preface.purpose, connection, self._key_of(preface))
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
