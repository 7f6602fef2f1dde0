"""Keeps warm workers ready, so that a program starts without waiting for a driver.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence

from outboard import __version__
from outboard.agent.records import WorkerRecord
from outboard.agent.sandbox import Sandbox
from outboard.agent.worker import Worker, WorkerState
from outboard.errors import Refusal, WorkerFailed

log = logging.getLogger("outboard.agent.workers")

START_TIMEOUT_S = 60.0
LONGEST_RETRY_S = 60.0
_TRIES_BEFORE_FAILING = 3
_FEW_CORES = len(os.sched_getaffinity(0)) < 4
_FILL_AFTER_S = 0.5


class Workers:
    """All worker processes of this node. `on_exit` hears of every one that was reaped."""

    def __init__(
        self,
        program: str,
        driver: str,
        warm_devices: Sequence[int],
        environment: Mapping[str, str],
        keep_warm: int,
        on_exit: Callable[[Worker], None],
        on_reach: Callable[[Worker, str], None],
        sandbox: Sandbox,
        agent_socket: str | None = None,
    ) -> None:
        """`on_reach` hears which other worker one asks for.

        `agent_socket` is where a worker whose agent died looks for the next one.
        """
        self._sandbox = sandbox
        self._program = program
        self._driver = driver
        self._arguments = [program, "--driver", driver, *sandbox.worker_options]
        for index in warm_devices:
            self._arguments += ["--warm-device", str(index)]
        if agent_socket is not None:
            self._arguments += ["--agent-socket", agent_socket]
        self._environment = environment
        self._keep_warm = keep_warm
        self._on_exit = on_exit
        self._on_reach = on_reach
        self._all: set[Worker] = set()
        self._builds: dict[Worker, tuple[int, ...]] = {}
        self._spare: list[Worker] = []
        self._failures = 0
        self._retry: asyncio.TimerHandle | None = None
        self._closing = False
        self._none_left = asyncio.Event()
        self.last_failure = ""

    @property
    def warm_count(self) -> int:
        return sum(worker.state is WorkerState.WARM for worker in self._spare)

    @property
    def failing(self) -> bool:
        """Whether no worker has become ready for several tries."""
        return self._failures >= _TRIES_BEFORE_FAILING and self.warm_count == 0

    def fill(self) -> None:
        """Start workers until as many are warm, or on their way, as the setting says."""
        self._retry = None
        while not self._closing and len(self._spare) < self._keep_warm:
            worker = self._start()
            if worker is None:
                return
            self._spare.append(worker)

    def pick(self, protocol: str, user: int | None) -> Worker:
        """A worker to be had with `take`: a warm one, or one that is started now.

        A worker has its user from before its driver starts, for the driver remembers who it
        serves. So for a session that has one, `user`, none of those that wait is right. Raises
        `Refusal` if none starts.
        """
        worker = (None if user is not None else self._match(protocol)) or self._start(user)
        if worker is None:
            raise self._no_worker()
        return worker

    async def take(self, worker: Worker, protocol: str, release: str) -> Worker:
        """The worker, once it is ready.

        Raises `Refusal`: `version` if it speaks another protocol, `no_worker` if it does not start.
        """
        # Where cores are few the next worker's start would slow the one that begins to compute.
        asyncio.get_running_loop().call_later(_FILL_AFTER_S if _FEW_CORES else 0.0, self.fill)
        try:
            await worker.warm(START_TIMEOUT_S)
        except WorkerFailed as error:
            raise self._no_worker() from error
        except asyncio.CancelledError:
            worker.end("its client left before it was ready")
            raise
        if worker.protocol != protocol:
            worker.end("its client speaks another protocol")
            raise Refusal(
                "version",
                f"this program's Outboard is release {release} (protocol {protocol[:12]}), the"
                f" server's is release {__version__} (protocol {worker.protocol[:12]})",
                "install the same release on both sides; after an upgrade: outboard pool stop",
            )
        return worker

    def adopt(self, known: WorkerRecord) -> Worker:
        """Watch a claimed worker of the agent before this one; raises `OSError` if it has ended."""
        worker = Worker(
            known.id, known.pid, WorkerState.CLAIMED, self._exited, on_reach=self._on_reach
        )
        if worker.start_time != known.start_time:
            worker.abandon()
            raise ProcessLookupError(known.pid)
        worker.protocol = known.protocol
        worker.user = known.user
        self._all.add(worker)
        return worker

    def give_back(self, worker: Worker) -> None:
        """Keep a worker that was taken but not claimed, unless its user is a session's now."""
        room = len(self._spare) < max(1, self._keep_warm)
        if worker.state is WorkerState.WARM and worker.user is None and room:
            self._spare.append(worker)
        else:
            worker.end("not needed")

    def has_user(self, user: int | None) -> bool:
        """Whether any worker that lives runs as this user of workers."""
        return any(worker.user == user for worker in self._all)

    async def close(self, *, abandon_claimed: bool) -> None:
        """End every worker; those with a program may be left to end with it."""
        self._closing = True
        if self._retry is not None:
            self._retry.cancel()
        for worker in list(self._all):
            if abandon_claimed and worker.state is WorkerState.CLAIMED:
                worker.abandon()
                self._all.discard(worker)
            else:
                worker.end("the pool ends")
        self._none_left.clear()
        if self._all:
            await self._none_left.wait()

    def _match(self, protocol: str) -> Worker | None:
        """A spare worker for the protocol; those of an older build are retired on the way."""
        for worker in list(self._spare):
            self._spare.remove(worker)
            fits = worker.state is WorkerState.STARTING or worker.protocol == protocol
            if fits and self._builds.get(worker) == self._build():
                return worker
            worker.end("another build of the worker is asked for")
        return None

    def _start(self, user: int | None = None) -> Worker | None:
        """Start one, as this user, or as one that nobody has."""
        try:
            user = self._sandbox.take(user)
            worker = Worker.start(
                self._arguments,
                self._environment,
                self._exited,
                self._on_reach,
                lambda: self._sandbox.enter(user),
            )
        except OSError as error:
            if not self.has_user(user):
                self._sandbox.release(user)
            self._failed(f"{self._program} cannot be started: {error.strerror or error}")
            return None
        worker.user = user
        self._all.add(worker)
        self._builds[worker] = self._build()
        return worker

    def _build(self) -> tuple[int, ...]:
        """Tells one build of worker and driver from the next: a warm worker of the old one, with
        its libraries already mapped, is not given to a program."""
        marks: list[int] = []
        for path in (self._program, self._driver):
            with contextlib.suppress(OSError):
                found = os.stat(path)
                marks += (found.st_ino, found.st_mtime_ns)
        return tuple(marks)

    def _exited(self, worker: Worker) -> None:
        self._all.discard(worker)
        self._builds.pop(worker, None)
        if not self.has_user(worker.user):
            self._sandbox.release(worker.user)
        if worker in self._spare:
            self._spare.remove(worker)
            if not self._closing:
                self._failed(worker.failure or "a warm worker ended by itself")
        elif not worker.protocol:
            self.last_failure = worker.failure
        else:
            self._failures = 0
        if not self._all:
            self._none_left.set()
        self._on_exit(worker)

    def _failed(self, why: str) -> None:
        self.last_failure = why
        self._failures += 1
        delay_s = min(LONGEST_RETRY_S, 0.25 * 2.0 ** min(self._failures, 10))
        log.error("no warm worker (%s); next try in %.1f s", why, delay_s)
        if self._retry is None and not self._closing:
            self._retry = asyncio.get_running_loop().call_later(delay_s, self.fill)

    def _no_worker(self) -> Refusal:
        return Refusal(
            "no_worker",
            f"the server could not start a worker: {self.last_failure or 'it ended'}",
            "the server's log says more: outboard pool status",
        )
