"""The client service's process: holds the GPUs, answers programs, tells systemd.

SPDX-License-Identifier: Apache-2.0

SIGTERM never releases: stop and restart both send it. What is held is released after a stop, by
`release_left_over`, or taken over by the next start (docs/internals/service.md).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from outboard.client.pool import Granted
from outboard.errors import (
    ConfigurationError,
    MalformedRequest,
    NativeFilesMissing,
    NotFound,
    OutboardError,
    SessionEnded,
    SessionIdle,
    ShareTooSmall,
    Stale,
    UsageError,
)
from outboard.notify import Notifier, passed_listener
from outboard.service.access import Access
from outboard.service.condition import Condition, State
from outboard.service.door import Door
from outboard.service.folders import ServiceFolders
from outboard.service.holder import Holder
from outboard.service.options import ServiceOptions
from outboard.service.publish import publish
from outboard.service.reception import Reception

log = logging.getLogger("outboard.service")

EXIT_INCURABLE = 78
_FIRST_PAUSE_S = 1.0
_LEAST_LOOK_S = 0.05
_INCURABLE = (UsageError, ConfigurationError, MalformedRequest, NativeFilesMissing, ShareTooSmall)
_BUSY = ("busy", "waited_too_long")

T = TypeVar("T")


class Incurable(Exception):
    """What no retry can cure: the service ends, and is not started again by itself."""

    def __init__(self, error: OutboardError) -> None:
        super().__init__(error.message)
        self.error = error


def run_service(folders: ServiceFolders, options: ServiceOptions) -> int:
    """Run until a signal; returns the exit code, 78 for what no retry can cure."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    notifier = Notifier()
    listener = passed_listener()
    try:
        access = Access(options)
        if listener is not None:
            return asyncio.run(Service(folders, options, access, notifier).run(listener))
        # Nobody made the socket and the session file: this is a service in the foreground.
        folders.make()
        with publish(folders, options) as own:
            return asyncio.run(Service(folders, options, access, notifier).run(own))
    except OutboardError as error:
        incurable = error
    except Incurable as caught:
        incurable = caught.error
    log.error("%s", incurable.message)
    if incurable.hint:
        log.error("%s", incurable.hint)
    why = "; ".join(filter(None, (incurable.message, incurable.hint)))
    notifier.tell(f"STATUS=failed: {why}", f"ERRNO={EXIT_INCURABLE}")
    return EXIT_INCURABLE


class Service:
    """One service's life: one task holds the GPUs, one answers programs, one tells systemd."""

    def __init__(
        self, folders: ServiceFolders, options: ServiceOptions, access: Access, notifier: Notifier
    ) -> None:
        self.options = options
        self.condition = Condition()
        self._folders = folders
        self._notifier = notifier
        self._holder = Holder(folders.lease_file, f"service {folders.name}")
        self._reception = Reception(self, access)
        self._stirred = asyncio.Event()
        self._changed = asyncio.Event()
        self._granted: Granted | None = None
        self._exchange_s = 0.0
        self._stopping: asyncio.Future[int]

    @property
    def granted(self) -> Granted | None:
        """What programs may use now."""
        return self._granted if self.condition.state is State.ACTIVE else None

    @property
    def start_command(self) -> str:
        """What a person types to start it, for messages."""
        return self._folders.systemctl("restart")

    def stir(self) -> None:
        """Somebody wants GPUs: leave standby, end the pause between two tries."""
        self._stirred.set()

    async def changed(self) -> None:
        """Return when the state has changed."""
        await self._changed.wait()

    def reload(self, options: ServiceOptions) -> None:
        """Other options from now on; what they change of the GPUs waits until nobody uses them."""
        if (options.for_user, options.group) != (self.options.for_user, self.options.group):
            raise UsageError(
                "who may use the service is not changed by a reload",
                f"restart it: {self._folders.systemctl('restart')}",
            )
        self.options = options
        if self.condition.state is State.ENDED:
            self._become(State.WAITING, "it was reloaded")
        self.stir()
        self._tell()

    async def run(self, listener: socket.socket) -> int:
        """Serve until a signal; returns the exit code."""
        loop = asyncio.get_running_loop()
        self._stopping = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        tasks = [
            loop.create_task(Door(listener, self._reception.answer).serve()),
            loop.create_task(self._hold()),
            loop.create_task(self._report()),
        ]
        for task in tasks:
            task.add_done_callback(self._task_ended)
        try:
            received = await self._stopping
        finally:
            self._notifier.tell("STOPPING=1")
            for task in tasks:
                task.cancel()
        if received == signal.SIGINT and not self._notifier.supervised:
            # A person's Ctrl-C in the foreground: nothing comes after that could release.
            await _in_thread(self._holder.release)
        return 0

    def _stop(self, number: int) -> None:
        if not self._stopping.done():
            self._stopping.set_result(number)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self._stopping.done():
            self._stopping.set_exception(
                task.exception() or RuntimeError("a part of the service has ended")
            )

    # --- holding ------------------------------------------------------------------------------

    async def _hold(self) -> None:
        """From state to state, for ever."""
        pause_s = _FIRST_PAUSE_S
        while True:
            self._stirred.clear()
            try:
                granted = await _in_thread(lambda: self._holder.obtain(self.options))
            except SessionEnded as error:
                self._holder.forget()  # told to go on, it asks for a session of its own
                await self._rest(State.ENDED, error.message)
            except _INCURABLE as error:
                raise Incurable(error) from error
            except (OutboardError, OSError) as error:
                busy = isinstance(error, OutboardError) and error.code in _BUSY
                await self._pause(_why(error), _FIRST_PAUSE_S if busy else pause_s)
                pause_s = min(2 * pause_s, self.options.longest_pause_s)
            else:
                pause_s = _FIRST_PAUSE_S
                await self._use(granted)

    async def _use(self, granted: Granted) -> None:
        """Keep what was granted until it is lost, ended, idle or to be exchanged."""
        now_unix = time.time()
        self._granted = granted
        condition = self.condition
        condition.session = granted.session
        condition.software = granted.software or condition.software
        condition.unused_since_unix = now_unix
        self._exchange_s = _exchange_s(granted)
        self._note(granted, now_unix)
        self._become(State.ACTIVE)
        log.info("session %s: %s", granted.session.session, condition.devices())
        while True:
            look_s = next_look_s(granted, self.options.idle_s, self._exchange_s)
            await self._wait_for_stir(look_s)
            self._stirred.clear()
            try:
                granted = await _in_thread(partial(self._holder.renew, granted.lease_s))
            except SessionEnded as error:
                self._holder.forget()
                await self._rest(State.ENDED, error.message)
                return
            except SessionIdle as error:
                # Asking again at once would only hold what nobody uses.
                self._holder.forget()
                await self._stand_by(error.message)
                return
            except (NotFound, Stale) as error:
                self._holder.forget()
                self._become(State.LOST, error.message)
                return
            except (OutboardError, OSError) as error:
                self._holder.disconnect()
                if time.time() >= condition.lease_until_unix:
                    self._become(State.LOST, f"the lease ran out: {_why(error)}")
                    return
                condition.reason = f"the pool does not answer: {_why(error)}"
                self._tell()
                continue
            self._granted = granted
            condition.reason = ""
            self._note(granted, time.time())
            if await self._leave(granted):
                return
            self._tell()

    async def _leave(self, granted: Granted) -> bool:
        """Whether nobody uses what is held, and it is to be given back or exchanged."""
        condition, options = self.condition, self.options
        if not self._holder.fits(options):
            if not granted.programs and not self._reception.expected(time.time()):
                self._become(State.WAITING, "other GPUs are asked for since the reload")
                await self._release()
                return True
            condition.pending = "new options wait until no program is connected"
        if granted.ends_s is not None and granted.ends_s <= self._exchange_s:
            return await self._leave_before_the_end(granted)
        if options.idle_s is None or granted.programs or self._reception.expected(time.time()):
            return False
        idle_s = time.time() - condition.unused_since_unix
        if idle_s < options.idle_s:
            return False
        # Programs that come from here on wait for the next allocation, not for this one's end.
        await self._stand_by(f"released after {idle_s:.0f} s without a program", self._release)
        return True

    async def _stand_by(
        self, reason: str, release: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Have no GPUs until a program asks for some."""
        self._become(State.STANDBY, reason)
        if release is not None:
            await release()
        await self._wait_for_stir(None)
        self._become(State.WAITING, "a program asks for GPUs")

    async def _leave_before_the_end(self, granted: Granted) -> bool:
        """The pool's limit on a session's time is near: exchange what nobody uses, warn else."""
        if not granted.programs and not self._reception.expected(time.time()):
            self._become(State.WAITING, "the pool's longest time for a session is nearly up")
            await self._release()
            return True
        if not self.condition.ends_soon:
            self.condition.ends_soon = True
            self._warn(self.condition.ending(time.time()))
        return False

    def _warn(self, text: str) -> None:
        log.warning("%s", text)
        self._reception.announce(text)

    async def _release(self) -> None:
        try:
            await _in_thread(self._holder.release)
        except (OutboardError, OSError) as error:
            self._holder.disconnect()
            log.warning("not released, the lease will run out: %s", _why(error))

    def _note(self, granted: Granted, now_unix: float) -> None:
        condition = self.condition
        condition.pending = ""
        if granted.programs or condition.programs or self._reception.expected(now_unix):
            condition.unused_since_unix = now_unix
        condition.programs = granted.programs
        condition.lease_until_unix = now_unix + granted.lease_s
        condition.ends_unix = None if granted.ends_s is None else now_unix + granted.ends_s
        if granted.notice and not condition.notice:
            self._warn(granted.notice)  # once: its figures change with every renewal
        condition.notice = granted.notice

    async def _rest(self, state: State, reason: str) -> None:
        self._become(state, reason)
        log.warning("%s", self.condition.line(time.time()))
        while self.condition.state is state:
            await self._wait_for_stir(None)
            self._stirred.clear()

    async def _pause(self, reason: str, pause_s: float) -> None:
        """Wait before the next try, less if somebody asks, but not less than the first pause."""
        self._holder.disconnect()
        lost = self.condition.state is State.LOST
        if reason != self.condition.reason:
            log.warning("%s: %s", "lost the GPUs" if lost else "waiting for the pool", reason)
        self._become(State.LOST if lost else State.WAITING, reason)
        self.condition.next_try_unix = time.time() + pause_s
        self._tell()
        await asyncio.sleep(min(pause_s, _FIRST_PAUSE_S))
        if pause_s > _FIRST_PAUSE_S:
            await self._wait_for_stir(pause_s - _FIRST_PAUSE_S)

    async def _wait_for_stir(self, most_s: float | None) -> None:
        try:
            async with asyncio.timeout(most_s):
                await self._stirred.wait()
        except TimeoutError:
            pass

    # --- telling ------------------------------------------------------------------------------

    def _become(self, state: State, reason: str = "") -> None:
        self.condition.become(state, reason)
        self._changed.set()
        self._changed.clear()
        self._tell()

    def _tell(self) -> None:
        self._notifier.tell(f"STATUS={self.condition.line(time.time())}")

    async def _report(self) -> None:
        """READY once there are GPUs, or after the time that a boot may be held up; then signs."""
        loop = asyncio.get_running_loop()
        self._tell()
        deadline = loop.time() + self.options.ready_timeout_s
        while self.condition.state is not State.ACTIVE and loop.time() < deadline:
            try:
                async with asyncio.timeout_at(deadline):
                    await self.changed()
            except TimeoutError:
                pass
        self._notifier.tell("READY=1", f"STATUS={self.condition.line(time.time())}")
        while True:
            await asyncio.sleep(min(self._notifier.watchdog_s or 5.0, 5.0))
            self._notifier.tell("WATCHDOG=1", f"STATUS={self.condition.line(time.time())}")


def next_look_s(granted: Granted, idle_s: float | None, exchange_s: float) -> float:
    """When to renew: at a sixth of the lease, half of the grant, and as often as the pool wants to
    hear of who holds it, which at first is soon: a grant that nobody picks up ends early. Often
    enough for idleness, and when it is time to exchange the session."""
    look_s = min(granted.lease_s / 6, (granted.grant_expires_unix - time.time()) / 2)
    if granted.renew_every_s is not None:
        look_s = min(look_s, granted.renew_every_s)
    if idle_s is not None:
        look_s = min(look_s, idle_s / 4)
    if granted.ends_s is not None and granted.ends_s > exchange_s:
        look_s = min(look_s, granted.ends_s - exchange_s)
    return max(_LEAST_LOOK_S, look_s)


def _exchange_s(granted: Granted) -> float:
    """How long before its end a session that nobody uses is exchanged for the next."""
    return 0.0 if granted.ends_s is None else min(granted.lease_s, granted.ends_s / 4)


def _why(error: Exception) -> str:
    if isinstance(error, OutboardError):
        return error.message
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


async def _in_thread(work: Callable[[], T]) -> T:
    """Run something that blocks. The thread is a daemon: a process that ends does not wait for
    an answer that may never come."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if outcome.cancelled():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]

    def call() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = work()
        except BaseException as error:
            failure = error
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:
            pass  # the loop is closed: the service has ended meanwhile

    threading.Thread(target=call, name="holder", daemon=True).start()
    return await outcome
