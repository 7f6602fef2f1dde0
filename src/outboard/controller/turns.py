"""The event loop's way to the ledger: what is wanted at the same time goes there together.

SPDX-License-Identifier: Apache-2.0

Everything that came while a turn was taken is the next turn's: one hand-over to a thread, one
commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from outboard.ledger.database import Database, Outcome, Work

Result = TypeVar("Result")

_MOST_AT_ONCE = 64  # bounds how long the first of a turn waits for the last


class Turns:
    """Takes changes and short reads to one ledger. Methods belong to the event loop."""

    def __init__(self, database: Database) -> None:
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="turns")
        self._changes = _Queue(self._executor, database.write_all)
        self._reads = _Queue(self._executor, database.read_all)

    async def write(self, work: Callable[..., Result]) -> Result:
        """Change the ledger: all of it or nothing, as `Database.write` does."""
        return await self._changes.put(work)

    async def glance(self, work: Callable[..., Result]) -> Result:
        """Read a few rows, in one snapshot with what else is looked at just now."""
        return await self._reads.put(work)

    def close(self) -> None:
        """What has begun comes to its end."""
        self._executor.shutdown()


@dataclass(frozen=True, slots=True)
class _Waiting:
    work: Work[Any]
    future: asyncio.Future[Any]


class _Queue:
    """Work that goes together: while some is done in a thread, the rest gathers."""

    def __init__(
        self,
        executor: ThreadPoolExecutor,
        run: Callable[[list[Work[Any]]], list[Outcome[Any]]],
    ) -> None:
        self._executor, self._run = executor, run
        self._waiting: list[_Waiting] = []
        self._busy = False

    async def put(self, work: Work[Result]) -> Result:
        """Its result, once its turn is over."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(work, loop.create_future())
        self._waiting.append(waiting)
        if not self._busy:
            # What else this pass of the loop brings may come along.
            self._busy = True
            loop.call_soon(self._begin, loop)
        result: Result = await waiting.future
        return result

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._waiting = [one for one in self._waiting if not one.future.cancelled()]
        batch = self._waiting[:_MOST_AT_ONCE]
        del self._waiting[:_MOST_AT_ONCE]
        if not batch:
            self._busy = False
            return
        done = loop.run_in_executor(self._executor, self._run, [one.work for one in batch])
        done.add_done_callback(lambda done: self._end(loop, batch, done))

    def _end(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Waiting],
        done: asyncio.Future[list[Outcome[Any]]],
    ) -> None:
        failure = asyncio.CancelledError() if done.cancelled() else done.exception()
        for number, one in enumerate(batch):
            if one.future.done():
                continue  # its caller has left
            error = failure or done.result()[number].error
            if error is not None:
                one.future.set_exception(error)
            else:
                one.future.set_result(done.result()[number].value)
        if self._waiting:
            self._begin(loop)
        else:
            self._busy = False
