"""Puts controller and agent together behind one Unix socket, and ends them when nobody needs them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import fcntl
import json
import logging
import os
import signal
import socket
import time

from outboard import __version__
from outboard.agent.admission import Admission
from outboard.agent.agent import Agent
from outboard.agent.driver import candidate_drivers
from outboard.agent.epochs import Epochs
from outboard.agent.gate import Gate
from outboard.agent.inventory import Inventory, find_devices
from outboard.agent.isolation import raise_soft_limits, worker_environment
from outboard.agent.sandbox import DEFAULT_USERS, Sandbox, prepare
from outboard.agent.view import keep_mounts
from outboard.agent.worker import Worker
from outboard.agent.workers import Workers
from outboard.controller.api import Api
from outboard.controller.controller import Controller
from outboard.controller.http import serve_unix
from outboard.controller.ledger import Ledger
from outboard.directories import (
    cache_directory,
    pool_socket,
    sessions_directory,
    state_directory,
)
from outboard.errors import OutboardError, PoolStartFailed
from outboard.model.grant import HmacSigner
from outboard.model.node import Node
from outboard.native import NativeFiles, find_native_files
from outboard.pool.accounts import Accounts
from outboard.pool.logs import open_log
from outboard.settings import Settings, load_settings

log = logging.getLogger("outboard.pool")

_NOTE_EVERY_S = 10.0
_MOST_USES = 1024


def run_daemon(runtime: str, ready_fd: int | None) -> int:
    """Run the pool until it is stopped or idle; the start's outcome goes to `ready_fd`, as JSON."""
    os.umask(0o077)
    log_path = open_log()
    raise_soft_limits()
    lock = _take_lock(runtime)
    if lock is None:
        _report(ready_fd, {"ready": True})  # another one serves this folder
        return 0
    try:
        settings = load_settings()
        native = find_native_files()
        native.require_worker()
        environment = worker_environment(None)
        inventory, passed_over = find_devices(
            native.worker,
            candidate_drivers(settings.driver, native),
            environment,
            settings.warm_workers,
        )
        for why in passed_over:
            log.info("driver passed over: %s", why)
        keep_mounts()
        sandbox = prepare(
            settings.text("embedded.isolation", "auto"),
            DEFAULT_USERS,
            native.worker,
            inventory.driver.path,
            os.path.join(runtime, "view"),
        )
        environment = sandbox.environment(cache_directory())
        pool = Pool(runtime, settings, native, inventory, environment, sandbox, log_path)
        asyncio.run(pool.run(ready_fd))
    except OutboardError as error:
        log.error("the pool cannot start: %s", error.message)
        _report(ready_fd, {"error": error.code, "message": error.message, "hint": error.hint})
        return error.exit_code
    except Exception as error:
        log.exception("the pool failed")
        _report(ready_fd, {"error": "pool_start", "message": f"the pool failed: {error!r}"})
        return 1
    log.info("the pool has ended")
    return 0


class Pool:
    """The embedded pool's parts and its life."""

    def __init__(
        self,
        runtime: str,
        settings: Settings,
        native: NativeFiles,
        inventory: Inventory,
        environment: dict[str, str],
        sandbox: Sandbox,
        log_path: str | None,
    ) -> None:
        self._sandbox = sandbox
        self._runtime = runtime
        self._settings = settings
        self._native = native
        self._inventory = inventory
        self._environment = environment
        self._log_path = log_path
        self._stop = asyncio.Event()
        self._idle: asyncio.TimerHandle | None = None
        self._kept = False
        self._controller: Controller
        self._agent: Agent
        self._accounts = Accounts(state_directory())

    async def run(self, ready_fd: int | None) -> None:
        """Serve until stopped."""
        loop = asyncio.get_running_loop()
        name = socket.gethostname()
        node_key, signer = os.urandom(32), HmacSigner(os.urandom(32))
        # Grants and keys are this process's own: so is the memory of which are void.
        epochs = Epochs(None, time.time())
        agent = self._agent = Agent(
            Admission(name, node_key, signer, epochs), self._inventory.devices
        )
        gate = Gate("127.0.0.1", agent.admit)
        agent.memory_socket = gate.memory_socket
        self._controller = Controller(
            Ledger([self._node(name, gate.address)], self._accounts),
            agent,
            node_key,
            signer,
            self._settings.grant_lifetime_s,
            self._settings.lease_s,
            self._changed,
        )
        agent.on_programs = self._controller.programs_changed

        def exited(worker: Worker) -> None:
            agent.worker_exited(worker)
            self._note_uses()

        workers = agent.workers = Workers(
            self._native.worker,
            self._inventory.driver.path,
            self._inventory.warm_devices,
            self._environment,
            self._settings.warm_workers,
            exited,
            agent.introduce,
            self._sandbox,
        )
        self._remove_stale_session_files()
        path = pool_socket(self._runtime)
        _unlink_if_there(path)  # left by a pool that was killed: the lock says that none lives
        api = Api(
            self._controller,
            self._stop.set,
            self._keep,
            lambda: self._describe(workers),
            self._account,
        )
        server = await serve_unix(path, api.handle)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        serving = [loop.create_task(work()) for work in (gate.serve, self._note_for_ever)]
        self._log_start(gate.address)
        workers.fill()
        _report(ready_fd, {"ready": True})
        self._changed()
        await self._stop.wait()
        # From here on a launcher finds no socket, and starts a new pool once the lock is free.
        _unlink_if_there(path)
        server.close()
        for task in serving:
            task.cancel()
        gate.close()
        self._controller.ending = True
        await workers.close(abandon_claimed=True)
        self._note_uses()
        self._accounts.close()

    def _node(self, name: str, address: str) -> Node:
        return Node(
            name=name,
            address=address,
            tls="none",
            driver=self._inventory.driver.path,
            driver_version=self._inventory.driver_version,
            protocol=self._inventory.protocol,
            software=self._inventory.software,
            devices=self._inventory.devices,
        )

    def _note_uses(self) -> None:
        """Write down what programs did until now."""
        ended = self._agent.ended_uses.first(_MOST_USES)
        running = (session.uses() for session in self._agent.sessions)
        self._accounts.note(
            {**ended, **{name: one for uses in running for name, one in uses.items()}}
        )
        self._agent.ended_uses.drop(ended)

    async def _note_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_NOTE_EVERY_S)
            self._note_uses()

    def _account(
        self, since: dt.datetime | None, until: dt.datetime | None, by: list[str]
    ) -> dict[str, object]:
        self._note_uses()
        return self._accounts.account(since, until, by)

    def _changed(self) -> None:
        """A session came or went: start or stop the clock of the idle end."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._remove_stale_session_files()
        if not self._controller.in_use and not self._kept:
            self._idle = asyncio.get_running_loop().call_later(
                self._settings.idle_s, self._end_idle
            )

    def _keep(self) -> None:
        """Stay until somebody stops it, whoever uses it."""
        log.info("the pool stays until it is stopped")
        self._kept = True
        self._changed()

    def _end_idle(self) -> None:
        log.info("nobody has used the pool for %.0f s", self._settings.idle_s)
        self._stop.set()

    def _remove_stale_session_files(self) -> None:
        """Files of launchers that were killed: their sessions are over, their keys void."""
        folder = sessions_directory(self._runtime)
        for name in os.listdir(folder):
            if name.partition(".")[0] not in self._controller.ledger.sessions:
                _unlink_if_there(os.path.join(folder, name))  # its launcher may be faster

    def _describe(self, workers: Workers) -> dict[str, object]:
        return {
            "embedded": True,
            "log": self._log_path,
            "driver": self._inventory.driver.path,
            "native": self._native.root,
            "warm_workers": workers.warm_count,
            "worker_failure": workers.last_failure or None,
            "idle_s": None if self._kept else self._settings.idle_s,
            "missing_isolation": self._sandbox.missing,
        }

    def _log_start(self, address: str) -> None:
        log.info(
            "release %s, data plane on %s, driver %s (%s), %d devices, runtime folder %s",
            __version__,
            address,
            self._inventory.driver.path,
            self._inventory.driver.why,
            len(self._inventory.devices),
            self._runtime,
        )
        log.info("isolation that workers lack: %s", "; ".join(self._sandbox.missing))


def _unlink_if_there(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _take_lock(runtime: str) -> int | None:
    """The lock that makes this the folder's only pool, held until the process ends."""
    path = os.path.join(runtime, "pool.lock")
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise PoolStartFailed(f"{path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _report(ready_fd: int | None, outcome: dict[str, object]) -> None:
    if ready_fd is None:
        return
    try:
        os.write(ready_fd, json.dumps(outcome).encode() + b"\n")
        os.close(ready_fd)
    except OSError:
        pass  # the launcher that asked has gone, or was already told
