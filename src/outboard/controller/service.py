"""The controller of a pool of several machines: requests, queue, leases, over the shared ledger.

SPDX-License-Identifier: Apache-2.0

Everything of the ledger runs in threads; the image, the queue and who waits for what belong to the
event loop. Any number of controllers may serve one PostgreSQL: each plans for the whole queue, and
the ledger lets each request be granted once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from outboard.controller import views
from outboard.controller.image import (
    Image,
    Picture,
    read_all,
    read_changed,
    read_closed,
    read_devices,
)
from outboard.controller.keeper import Keeper
from outboard.controller.rehearsal import Rehearsal
from outboard.controller.turns import Turns
from outboard.errors import DatabaseUnavailable, LimitReached, NotFound, OutboardError, RequestError
from outboard.ledger import allocations, requests
from outboard.ledger.changes import Change, ChangeReader
from outboard.ledger.database import Database
from outboard.ledger.grants import Granted, Lost, granted_of
from outboard.ledger.rehearsal import rehearse
from outboard.ledger.requests import Ask, Terms
from outboard.ledger.transaction import Transaction
from outboard.model.request import GrantedDevice, Request
from outboard.model.session_file import SessionFile
from outboard.scheduler.placement import Busy, DeviceState, Placement
from outboard.scheduler.queue import Plan, Running, Standing, Waiting, ordered, plan

log = logging.getLogger("outboard.controller")

Result = TypeVar("Result")
Answer = TypeVar("Answer")
Sight = Callable[[str, str | None], bool]  # of (user, host)

_ATTEMPTS = 4
_LEAST_PAUSE_S = 0.05
_FEED_BACKLOG = 1000
_MOST_FIRST_REASONS = 1000
_MOST_GRANTS = 100
_SLICES_OF_RELOAD = 10
_SLICES_OF_ALL = 60


class SessionMaker(Protocol):
    """Makes what a client needs to use a grant."""

    def session_file(self, tx: Transaction, made: Granted) -> tuple[SessionFile, int]:
        """A session's file with fresh grants, and when those expire (unix seconds)."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often things are done, in seconds; all of them settings."""

    keep_s: float = 5.0
    feed_s: float = 0.2
    reload_s: float = 10.0
    grace_s: float = 30.0


class Service:
    """One controller. `start` before use, `close` after; methods belong to the event loop."""

    def __init__(
        self,
        database: Database,
        terms: Terms,
        pace: Pace = Pace(),
        on_ending: Callable[[], None] = lambda: None,
        turns: Turns | None = None,
    ) -> None:
        """`on_ending` is called when something began to end: agents are to be told."""
        self.database = database
        self.turns = turns or Turns(database)
        self.terms = terms
        self.image = Image()
        self.keeper = Keeper(database, terms, pace.grace_s)
        self.standings: dict[str, Standing] = {}
        self.trouble = ""
        self.on_accounts: Callable[[], None] = lambda: None  # a token or a user has changed
        self.fed_s = 0.0  # when what had changed by then was taken in, by the monotonic clock
        self._first_reasons: OrderedDict[str, str] = OrderedDict()
        self._pace = pace
        self._on_ending = on_ending
        self._reader = ChangeReader()
        self._reserved: dict[str, tuple[tuple[str, int], ...]] = {}
        self._done: list[tuple[GrantedDevice, ...]] = []
        self._doubted: set[str] = set()
        self._slices: list[list[str]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._poked = asyncio.Event()
        self._news = asyncio.Condition()
        self._listeners: set[asyncio.Queue[Change | None]] = set()
        self._executor = ThreadPoolExecutor(24, thread_name_prefix="ledger")

    async def start(self) -> None:
        """Read the ledger, then keep up with it."""

        def read(tx: Transaction) -> tuple[ChangeReader, Picture]:
            return ChangeReader.from_now(tx), read_all(tx, self.terms)

        self._reader, picture = await self.run(lambda: self.database.read(read))
        self.image.take_in(picture)
        for work in (self._feed_for_ever, self._keep_for_ever, self._reload_for_ever):
            self._tasks.append(asyncio.get_running_loop().create_task(work()))

    async def close(self) -> None:
        """Stop; what clients were promised is in the ledger, and goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for queue in self._listeners:
            queue.put_nowait(None)
        with contextlib.suppress(OutboardError):
            await self.run(self.keeper.flush)
        self._executor.shutdown()
        self.turns.close()

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run something that blocks."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def read(self, work: Callable[[Transaction], Result]) -> Result:
        """Read the ledger."""
        return await self.run(lambda: self.database.read(work))

    async def glance(self, work: Callable[[Transaction], Result]) -> Result:
        """Read a few rows of the ledger, together with others that do."""
        return await self.turns.glance(work)

    async def write(self, work: Callable[[Transaction], Result]) -> Result:
        """Change the ledger; what follows from it is looked at at once."""
        result = await self.turns.write(work)
        self._poked.set()
        return result

    # --- requests --------------------------------------------------------------------------------

    async def request(
        self, request: Request, hold_s: float, answer: Callable[[Transaction, Granted], Answer]
    ) -> Answer | Ask:
        """Submit a request and wait for its grant at most `hold_s`; repeating it is safe.

        `answer` says what its client is told of a grant; where it fails nothing is granted.
        Raises a `RequestError` for what can never be granted, or what a limit forbids at all.
        """
        for _ in range(_ATTEMPTS):
            chosen, refusal = self._choose(request)
            if refusal is not None:  # never on a picture that may be behind the ledger
                await self._read_devices()
                chosen, refusal = self._choose(request)
            seen = self.image.seen()

            def work(tx: Transaction) -> tuple[Granted | Ask | Lost, Answer | None]:
                outcome = self._submit(tx, request, chosen, refusal, seen)  # noqa: B023
                return outcome, answer(tx, outcome) if isinstance(outcome, Granted) else None

            with self._holding(chosen) as done:
                outcome, told = await self.write(work)
                done(outcome)
            if isinstance(outcome, Ask):
                return await self.follow(request.id, hold_s, _anyone, answer)
            if told is not None:
                return told
            await self._read_devices({one.node for one in chosen})
        await self.write(lambda tx: requests.submit(tx, request))
        return await self.follow(request.id, hold_s, _anyone, answer)

    async def rehearse(self, request: Request) -> dict[str, Any]:
        """What would become of a request now, as the API says it; raises what `request` would.

        By the ledger, not by the image, which counts what was just granted twice for a moment.
        """
        for _ in range(_ATTEMPTS):
            picture = await self.read(self._read_pool)
            states = list(picture.devices.values())
            waiting = [one for one in picture.waiting.values() if one is not None]
            asked = Waiting(request, picture.now_us)
            made = await self._make_plan(picture.now_us, states, [*waiting, asked])
            found = Rehearsal.of(made, request)
            limited = await self.run(
                lambda: rehearse(self.database, request, found.devices, self.terms)  # noqa: B023
            )
            if limited is not None:
                break
        return (Rehearsal(reason=limited) if limited else found).to_json(request, states)

    def _read_pool(self, tx: Transaction) -> Picture:
        picture = read_devices(tx, self.terms)
        picture.waiting = {
            ask.request.id: Waiting(ask.request, ask.created_us)
            for ask in requests.waiting_requests(tx)
        }
        return picture

    async def follow(
        self,
        request_id: str,
        hold_s: float,
        may_see: Sight,
        answer: Callable[[Transaction, Granted], Answer],
    ) -> Answer | Ask:
        """Where a request stands, waiting for its grant at most `hold_s`; a sign of its client.

        Raises `NotFound` if it is none of the caller's business.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + hold_s
        while True:
            found = await self.glance(lambda tx: _outcome(tx, request_id, may_see))
            self.keeper.note_sign(request_id)
            left_s = deadline - loop.time()
            if isinstance(found, Granted):
                if found.state == "active":
                    self.keeper.note_renewal(found.allocation)
                return await self.glance(lambda tx, made=found: answer(tx, made))  # type: ignore[misc]
            if found.state != "waiting" or left_s <= 0:
                return found
            await self._changed(
                lambda: request_id not in self.image.waiting, min(left_s, self._pace.keep_s)
            )

    async def end(
        self, session: str, may_end: Sight, actor: str, reason: str, hold_s: float
    ) -> str:
        """Begin to end a session and wait until it is over, at most `hold_s`; its state.

        Raises `NotFound` if it is not the caller's to end.
        """

        def begin(tx: Transaction) -> tuple[str, str]:
            locked = allocations.lock_session(tx, session)
            row = locked or views.find_session(tx, session)
            if not may_end(str(row.user_name), row.host):
                raise NotFound(
                    f"there is no session {session}", "see what there is: outboard sessions"
                )
            if locked is None:
                return "", "ended"
            begun = allocations.begin_end_of(tx, locked, actor, reason)
            return str(locked.id), "ending" if begun else str(locked.state)

        allocation, state = await self.write(begin)
        if state == "ending":
            self._on_ending()
        deadline = asyncio.get_running_loop().time() + hold_s
        while state != "ended":
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                break
            await self._changed(lambda: allocation not in self.image.running, min(left_s, 1.0))
            state = await self.glance(lambda tx: allocations.state_of(tx, allocation))
        return state

    def listen(self) -> asyncio.Queue[Change | None]:
        """A queue of every change from now on; None is the end."""
        queue: asyncio.Queue[Change | None] = asyncio.Queue(_FEED_BACKLOG)
        self._listeners.add(queue)
        return queue

    def unlisten(self, queue: asyncio.Queue[Change | None]) -> None:
        self._listeners.discard(queue)

    def poke(self) -> None:
        """Something was written: look at it now."""
        self._poked.set()

    @contextlib.contextmanager
    def _holding(self, chosen: tuple[GrantedDevice, ...]) -> Iterator[Callable[[object], None]]:
        """Count devices as granted while a transaction grants them; told of a grant, until the
        image has read it."""
        kept: list[bool] = []
        self.image.hold(chosen)
        try:
            yield lambda outcome: kept.append(isinstance(outcome, Granted))
        finally:
            if any(kept):
                self._done.append(chosen)
            else:
                self.image.hold(chosen, -1)

    async def _read_devices(self, names: Collection[str] | None = None) -> None:
        self.image.take_in(await self.read(lambda tx: read_devices(tx, self.terms, names)))

    def _choose(self, request: Request) -> tuple[tuple[GrantedDevice, ...], RequestError | None]:
        """Devices for a request that needs not queue; or why it can never have any."""
        try:
            outcome = self.image.choose(request)
        except RequestError as error:
            return (), error
        if self.image.waiting or not isinstance(outcome, Placement):
            self._note_first_reason(request.id, outcome)
            return (), None
        return outcome.devices, None

    def _note_first_reason(self, request_id: str, outcome: Placement | Busy) -> None:
        """What is told of a request that no pass over the queue has looked at yet."""
        before = f"{len(self.image.waiting)} requests are before it"
        reason = outcome.reason if isinstance(outcome, Busy) else before
        self._first_reasons[request_id] = reason
        while len(self._first_reasons) > _MOST_FIRST_REASONS:
            self._first_reasons.popitem(last=False)

    def reason(self, request_id: str) -> str:
        """Why a request waits, as far as it is known."""
        standing = self.standings.get(request_id)
        if standing is not None:
            return standing.reason
        return self._first_reasons.get(request_id, "it was not looked at yet")

    def _submit(
        self,
        tx: Transaction,
        request: Request,
        chosen: tuple[GrantedDevice, ...],
        refusal: RequestError | None,
        seen: requests.Seen,
    ) -> Granted | Ask | Lost:
        if refusal is not None and not requests.exists(tx, request.id):
            raise refusal
        return requests.submit_for(tx, request, chosen, self.terms, seen)

    # --- the loops -------------------------------------------------------------------------------

    async def _feed_for_ever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.feed_s):
                    await self._poked.wait()
            self._poked.clear()
            begun = time.monotonic()
            await self._guarded(self._feed())
            # What took long is not done all the time.
            await asyncio.sleep(max(_LEAST_PAUSE_S, time.monotonic() - begun))

    async def _feed(self) -> None:
        """Take in what has changed, grant what can be, wake who waits for it."""
        begun_s = time.monotonic()
        done, self._done = self._done, []
        doubted, self._doubted = self._doubted, set()
        try:
            changed, picture = await self.read(lambda tx: self._read_feed(tx, doubted))
            self.image.take_in(picture)
            if any(one.kind in ("token", "user") for one in changed):
                self.on_accounts()
            self.fed_s = begun_s
        except BaseException:
            self._doubted |= doubted
            raise
        finally:
            # What was being granted when this began is in the picture by now, or was not granted.
            for chosen in done:
                self.image.hold(chosen, -1)
        if self.image.waiting and (changed or done or doubted):
            await self._plan()
        if changed:
            async with self._news:
                self._news.notify_all()
            for queue in list(self._listeners):
                self._tell(queue, changed)

    def _read_feed(self, tx: Transaction, doubted: Collection[str]) -> tuple[list[Change], Picture]:
        changed = self._reader.read(tx)
        return changed, read_changed(tx, self.terms, changed, doubted)

    def _tell(self, queue: asyncio.Queue[Change | None], changed: list[Change]) -> None:
        try:
            for change in changed:
                queue.put_nowait(change)
        except asyncio.QueueFull:
            # A client that does not read is cut off: it begins anew and misses nothing.
            self._listeners.discard(queue)
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(None)

    async def _make_plan(
        self, now_us: int, states: list[DeviceState], waiting: list[Waiting]
    ) -> Plan:
        """One pass over a queue; in a thread, since it looks at every device for each."""
        running: list[Running] = [one for _, one in self.image.running.values()]
        reserved = self._reserved
        fair = deepcopy(self.image.fair)  # the loop goes on counting
        return await self.run(lambda: plan(states, waiting, running, fair, now_us, reserved))

    async def _plan(self) -> None:
        """One pass over the queue."""
        now_us = await self.glance(lambda tx: tx.now_us)
        if await self._grant_first(now_us):
            return
        waiting = list(self.image.waiting.values())
        made = await self._make_plan(now_us, self.image.states(), waiting)
        if made.refusals:  # never on a picture that may be behind the ledger
            await self._read_devices()
            made = await self._make_plan(now_us, self.image.states(), waiting)
        self._reserved, self.standings = dict(made.reserved), dict(made.standings)
        for request, placement in made.grants:
            await self._grant_waiting(request, placement)
        for request_id, error in made.refusals.items():
            text = f"{error.message}; {error.hint}"
            await self.write(
                lambda tx, r=request_id, text=text: requests.finish(tx, r, "refused", text)  # type: ignore[misc]
            )
            self.image.waiting.pop(request_id, None)

    async def _grant_first(self, now_us: int) -> bool:
        """Grant what is next for as long as it fits, which is what a plan would begin with, without
        looking at every device; returns whether that was all."""
        waiting = ordered(self.image.waiting.values(), self.image.fair, now_us)
        fitting: list[tuple[Request, Placement]] = []
        for one in waiting[:_MOST_GRANTS]:
            try:
                outcome = self.image.choose(one.request)
            except RequestError:
                break
            if not isinstance(outcome, Placement):
                break
            self.image.hold(outcome.devices)
            fitting.append((one.request, outcome))
        if len(fitting) == len(waiting):
            self._reserved, self.standings = {}, {}
        try:
            await asyncio.gather(*(self._grant_waiting(*one) for one in fitting))
        finally:
            for _, placement in fitting:
                self.image.hold(placement.devices, -1)
        return len(fitting) == len(waiting)

    async def _grant_waiting(self, request: Request, placement: Placement) -> None:
        chosen, seen = placement.devices, self.image.seen(placement.avoided)
        try:
            with self._holding(chosen) as done:
                outcome = await self.write(
                    lambda tx: requests.grant(tx, request.id, chosen, self.terms, seen)
                )
                done(outcome)
        except LimitReached as error:
            self.standings[request.id] = Standing(0, error.message)
            return
        except NotFound:
            outcome = Lost("it waits no more")
        if isinstance(outcome, Granted):
            self.image.waiting.pop(request.id, None)
        else:
            await self._read_devices({one.node for one in chosen})

    async def _keep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._pace.keep_s)
            await self._guarded(self._keep())

    async def _keep(self) -> None:
        if await self.run(self.keeper.keep):
            self._on_ending()

    async def _reload_for_ever(self) -> None:
        for number in itertools.count(1):
            await asyncio.sleep(self._pace.reload_s / _SLICES_OF_RELOAD)
            self._begin_slice()
            if number % _SLICES_OF_RELOAD == 0:
                await self._guarded(self._reload())

    def _begin_slice(self) -> None:
        """Have some servers read anew, and every server in so many slices: nobody waits for long
        while the image is put right, should it ever have missed a change."""
        if not self._slices:
            names = sorted(self.image.closed)
            size = -(-len(names) // _SLICES_OF_ALL)
            self._slices = [names[at : at + size] for at in range(0, len(names), size or 1)]
        if self._slices:
            self._doubted.update(self._slices.pop())
            self._poked.set()

    async def _reload(self) -> None:
        """Read what has fallen silent, or speaks again, which leaves no change."""
        closed = await self.read(lambda tx: read_closed(tx, self.terms))
        known = self.image.closed
        self._doubted.update(name for name, why in closed.items() if known.get(name) != why)
        if self._doubted:
            self._poked.set()
        if self.image.waiting:
            await self._plan()

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """A loop outlives its database: what failed is tried again the next time."""
        try:
            await work
            self.trouble = ""
        except DatabaseUnavailable as error:
            self.trouble = error.message
            await asyncio.sleep(self._pace.feed_s)
        except Exception:
            log.exception("the controller's work failed; it goes on")
            await asyncio.sleep(self._pace.feed_s)

    async def _changed(self, condition: Callable[[], bool], at_most_s: float) -> None:
        """Wait for news that make it true, or for so long."""
        async with self._news:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(at_most_s):
                    await self._news.wait_for(condition)


def _anyone(_user: str, _host: str | None) -> bool:
    """For who has shown already that the request is theirs."""
    return True


def _outcome(tx: Transaction, request_id: str, may_see: Sight) -> Granted | Ask:
    found = requests.find_request(tx, request_id)
    if not may_see(found.request.user, found.request.host):
        raise NotFound(f"there is no request {request_id}", "see who waits: outboard queue")
    return granted_of(tx, request_id) if found.state == "granted" else found
