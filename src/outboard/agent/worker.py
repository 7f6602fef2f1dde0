"""One worker process as the agent sees it: started, warm, claimed, ended, reaped.

SPDX-License-Identifier: Apache-2.0

The control socket's messages are in docs/internals/session.md §4. What a worker sends is not
trusted: it is bounded, parsed strictly, and can only make the agent end that worker.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from outboard.agent.isolation import CONTROL_FD, spawn
from outboard.agent.records import start_time_of
from outboard.errors import WorkerFailed
from outboard.model.request import GrantedDevice

log = logging.getLogger("outboard.agent.worker")

LARGEST_MESSAGE_BYTES = 32 * 1024
END_GRACE_S = 2.0
KILL_GRACE_S = 3.0

_MOST_LOGGED_BYTES = 64 * 1024


OnExit = Callable[["Worker"], None]
OnReach = Callable[["Worker", str], None]


class WorkerState(Enum):
    """The life of a worker, in order."""

    STARTING = "starting"
    WARM = "warm"
    CLAIMED = "claimed"
    ENDING = "ending"
    GONE = "gone"


class Worker:
    """A worker process; `on_exit` is called once, after it has ended."""

    def __init__(
        self,
        identity: str,
        pid: int,
        state: WorkerState,
        on_exit: OnExit,
        *,
        on_reach: OnReach,
        control: socket.socket | None = None,
        log_fd: int | None = None,
    ) -> None:
        """Watch a process; `control` and `log_fd` are this object's from now on.

        A worker of an agent that died has no log, is nobody's child, and calls by itself.
        """
        self.id = identity
        self.pid = pid
        self.state = state
        self.protocol = ""
        self.user: int | None = None
        self.failure = ""
        self.exit_status: int | None = None
        self._on_exit = on_exit
        self._on_reach = on_reach
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []
        self._signalled = False
        self._logged_bytes = 0
        self._partial_line = b""
        self._control: socket.socket | None = None
        self._log_fd = log_fd
        self._pidfd = os.pidfd_open(pid)
        self.start_time = start_time_of(pid) or 0
        if control is not None:
            self.connect(control)
        if log_fd is not None:
            os.set_blocking(log_fd, False)
            self._loop.add_reader(log_fd, self._on_log)
        self._loop.add_reader(self._pidfd, self._reap)

    @classmethod
    def start(
        cls,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        on_exit: OnExit,
        on_reach: OnReach,
        enter: Callable[[], None],
    ) -> Worker:
        """Start a worker; `arguments` are the program and what it is told besides its id.

        `enter` puts its process into the sandbox.
        """
        identity = os.urandom(16).hex()
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log_fd, log_write_fd = os.pipe()
        try:
            told = [*arguments, "--control-fd", str(CONTROL_FD), "--id", identity]
            pid = spawn(told, environment, theirs.fileno(), log_write_fd, enter)
        finally:
            theirs.close()
            os.close(log_write_fd)
        return cls(
            identity,
            pid,
            WorkerState.STARTING,
            on_exit,
            on_reach=on_reach,
            control=control,
            log_fd=log_fd,
        )

    @property
    def connected(self) -> bool:
        """Whether it hears orders: not so between an agent's death and the worker's next call."""
        return self._control is not None

    def connect(self, control: socket.socket) -> None:
        """Use this control socket, in place of one that it may have had."""
        self._disconnect()
        control.setblocking(False)
        self._control = control
        self._loop.add_reader(control.fileno(), self._on_message)

    async def warm(self, timeout_s: float) -> None:
        """Wait until it may be claimed; raises `WorkerFailed` and ends it if that does not come."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.state is WorkerState.STARTING:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self.failure = f"not ready after {timeout_s:.0f} s"
            self.kill()
        if self.state is not WorkerState.WARM:
            raise WorkerFailed(
                f"a worker did not start: {self.failure or 'it ended'}",
                "the pool's log says more: outboard pool status",
            )

    def claim(
        self,
        session: str,
        devices: Sequence[tuple[GrantedDevice, int]],
        slot: int,
        page_fd: int,
        command: socket.socket,
        key: bytes | None,
        memory_socket: str,
    ) -> None:
        """Give it a client's command socket and its slot of the session's share page.

        `devices` are the session's, each with the bytes that a context takes there. With a `key`
        the socket speaks TLS, and the worker has to. `memory_socket` is for clients on this host.
        """
        self._send(
            {
                "type": "claim",
                "session": session,
                "devices": [
                    {
                        "index": device.index,
                        "share_bytes": device.share_bytes,
                        "context_bytes": context_bytes,
                    }
                    for device, context_bytes in devices
                ],
                "slot": slot,
                "memory_socket": memory_socket,
                **_keyed(key),
            },
            [command.fileno(), page_fd],
        )
        self._enter(WorkerState.CLAIMED)

    def join(self, purpose: str, connection: socket.socket, key: bytes | None) -> None:
        """Give it another connection of its client: one of the purposes that join."""
        self._send({"type": purpose, **_keyed(key)}, [connection.fileno()])

    def introduce(self, asked_for: str | None, connection: socket.socket | None) -> None:
        """Give it a socket to a neighbour: the one it asked for, or one that asked for it.

        Without a socket: there is none of that id.
        """
        told = {} if asked_for is None else {"worker": asked_for}
        descriptors = [] if connection is None else [connection.fileno()]
        self._send({"type": "neighbour", **told}, descriptors)

    def end(self, reason: str) -> None:
        """Ask it to end; what does not is terminated after a grace, then killed."""
        if self.state in (WorkerState.ENDING, WorkerState.GONE):
            return
        self._enter(WorkerState.ENDING)
        try:
            self._send({"type": "end", "reason": reason}, [])
        except WorkerFailed:
            self._signal(signal.SIGTERM)
        self._end_later()

    def kill(self) -> None:
        """End it at once."""
        if self.state is not WorkerState.GONE:
            self._enter(WorkerState.ENDING)
            self._signal(signal.SIGKILL)

    def abandon(self) -> None:
        """Stop watching a worker that outlives this agent: it ends with its client."""
        if self.state is not WorkerState.GONE:
            self._stop_watching()

    def _send(self, message: dict[str, object], descriptors: list[int]) -> None:
        data = json.dumps(message).encode()
        try:
            if self._control is None:
                raise ConnectionResetError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
            if descriptors:
                socket.send_fds(self._control, [data], descriptors)
            else:
                self._control.send(data)
        except OSError as error:
            raise WorkerFailed(f"worker {self.pid} does not listen: {error.strerror}") from error

    def _end_later(self) -> None:
        """Terminate it after a grace, kill it after another."""
        if not self._timers:
            later = self._loop.call_later
            self._timers = [
                later(END_GRACE_S, self._signal, signal.SIGTERM),
                later(END_GRACE_S + KILL_GRACE_S, self._signal, signal.SIGKILL),
            ]

    def _on_message(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(LARGEST_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            # Its process is ending, and the pidfd will tell how; one that lingers is made to.
            self._disconnect()
            self._end_later()
            return
        try:
            message = json.loads(data)
            kind = message["type"]
            if kind == "ready" and self.state is WorkerState.STARTING:
                self.protocol = str(message["protocol"])
                self._enter(WorkerState.WARM)
            elif kind == "failed":
                self.failure = str(message["message"])[:400]
                log.error("worker %d failed: %s", self.pid, self.failure)
            elif kind == "reach" and self.state in (WorkerState.CLAIMED, WorkerState.ENDING):
                self._on_reach(self, str(message["worker"]))
            else:
                raise ValueError(f"unexpected {kind!r} while {self.state.value}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            log.error("worker %d sent nonsense and is ended: %r", self.pid, error)
            self.kill()

    def _on_log(self) -> bool:
        """Log what the worker wrote; returns whether there may be more."""
        if self._log_fd is None:
            return False
        try:
            data = os.read(self._log_fd, 4096)
        except BlockingIOError:
            return False
        if not data:
            self._close_log()
            return False
        # Bounded: a worker that is its client's puppet must not fill the log's disk.
        self._logged_bytes += len(data)
        if self._logged_bytes > _MOST_LOGGED_BYTES:
            return False
        *lines, self._partial_line = (self._partial_line + data).split(b"\n")
        for line in lines:
            log.info("worker %d: %s", self.pid, _printable(line))
        return True

    def _reap(self) -> None:
        while self._on_log():
            pass  # its last words, most likely why it ended
        self._stop_watching()
        try:
            _, status = os.waitpid(self.pid, 0)
            self.exit_status = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            self.exit_status = 0  # another agent's child: how it ended, nobody here can know
        if self._partial_line:
            log.info("worker %d: %s", self.pid, _printable(self._partial_line))
        if self.exit_status != 0 and not self.failure:
            self.failure = (
                f"killed by signal {-self.exit_status}"
                if self.exit_status < 0
                else f"exit code {self.exit_status}"
            )
        if self.exit_status != 0 and not self._signalled:
            log.warning("worker %d ended: %s", self.pid, self.failure)
        self._enter(WorkerState.GONE)
        self._on_exit(self)

    def _stop_watching(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._disconnect()
        self._close_log()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)

    def _disconnect(self) -> None:
        if self._control is not None:
            self._loop.remove_reader(self._control.fileno())
            self._control.close()
            self._control = None

    def _close_log(self) -> None:
        if self._log_fd is not None:
            self._loop.remove_reader(self._log_fd)
            os.close(self._log_fd)
            self._log_fd = None

    def _signal(self, number: signal.Signals) -> None:
        if self.state is not WorkerState.GONE:
            self._signalled = True
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                pass  # it ended; the pidfd's reader reaps it

    def _enter(self, state: WorkerState) -> None:
        self.state = state
        self._changed.set()


def _keyed(key: bytes | None) -> dict[str, object]:
    return {} if key is None else {"key": key.hex()}


def _printable(line: bytes) -> str:
    """A worker's line as the log may show it: no escape sequences, no invented lines."""
    text = line.decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)
