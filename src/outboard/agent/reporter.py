"""Tells the controllers what is here, and does what they order (docs/internals/agent.md).

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import Callable
from typing import Any, Protocol

from outboard import __version__
from outboard.agent.agent import Agent
from outboard.errors import OutboardError, PoolUnreachable

log = logging.getLogger("outboard.agent.reporter")

FIRST_RETRY_S = 0.25
LONGEST_RETRY_S = 10.0
ORDERS_WAIT_S = 25.0
REPORT_EVERY_S = 10.0
REMOVED = "node_removed"
_MOST_REMEMBER_S = 86400.0
_MOST_ENDED_USES = 1024


class Link(Protocol):
    """What carries a call to a controller."""

    async def post(
        self, path: str, body: dict[str, Any], timeout_s: float = ...
    ) -> dict[str, Any]: ...


class Reporter:
    """One node's word to its pool. `learn` hears the controllers' public keys, in hex, and their
    addresses."""

    def __init__(
        self,
        node: str,
        agent: Agent,
        link: Link,
        inventory: dict[str, object],
        health: Callable[[], dict[str, object]],
        learn: Callable[[tuple[str, ...], tuple[str, ...]], None],
    ) -> None:
        self._path = f"/v1/nodes/{node}"
        self._agent = agent
        self._link = link
        self._inventory = inventory
        self._inventory_id = hashlib.sha256(
            json.dumps(inventory, sort_keys=True).encode()
        ).hexdigest()
        self._health = health
        self._learn = learn
        self._instance = os.urandom(16).hex()
        self._changed = asyncio.Event()
        self._send_inventory = True
        self._report_every_s = REPORT_EVERY_S
        self._ends: dict[str, asyncio.Task[None]] = {}
        self._ended: set[str] = set()
        self._last_trouble = ""

    def changed(self, _session: str = "", _programs: int = 0) -> None:
        """There is news: the next report goes at once."""
        self._changed.set()

    async def run(self) -> None:
        """Report and obey until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._report_for_ever())
            group.create_task(self._obey_for_ever())

    async def report(self) -> None:
        """One report, and what its answer asks for; raises what `Link.post` raises."""
        named = set(self._ended)
        ended_uses = self._agent.ended_uses.first(_MOST_ENDED_USES)
        body: dict[str, Any] = {
            "instance": self._instance,
            "release": __version__,
            "inventory_id": self._inventory_id,
            "health": self._health(),
            "sessions": self._sessions(),
            "uses": [*ended_uses.values(), *self._uses()],
            "ended": sorted(named),
        }
        if self._send_inventory:
            body["inventory"] = self._inventory
        answer = await self._link.post(f"{self._path}/report", body)
        # What was named is known now: a controller that does not know it orders it again.
        self._ended -= named
        self._agent.ended_uses.drop(ended_uses)
        self._send_inventory = bool(answer.get("want_inventory"))
        self._report_every_s = min(600.0, max(0.1, float(answer["report_every_s"])))
        told = [tuple(str(one) for one in answer.get(name, ())) for name in ("keys", "controllers")]
        self._learn(*told)
        self._obey(answer)
        if self._send_inventory:
            self._changed.set()

    async def _report_for_ever(self) -> None:
        retry_s = FIRST_RETRY_S
        while True:
            self._changed.clear()
            try:
                await self.report()
                self._recovered()
                retry_s, pause_s = FIRST_RETRY_S, self._report_every_s
            except OutboardError as error:
                self._trouble(error)
                retry_s, pause_s = min(LONGEST_RETRY_S, 2 * retry_s), retry_s
            except (KeyError, TypeError, ValueError) as error:
                self._trouble(PoolUnreachable(f"the controller's answer is not ours: {error!r}"))
                retry_s, pause_s = min(LONGEST_RETRY_S, 2 * retry_s), retry_s
            try:
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _obey_for_ever(self) -> None:
        retry_s = FIRST_RETRY_S
        while True:
            body = {
                "instance": self._instance,
                "known": sorted({*self._ends, *self._ended}),
                "wait_s": ORDERS_WAIT_S,
            }
            try:
                answer = await self._link.post(f"{self._path}/orders", body, ORDERS_WAIT_S + 15)
                self._obey(answer)
                retry_s = FIRST_RETRY_S
            except (OutboardError, KeyError, TypeError, ValueError) as error:
                # The reports say what is wrong; this only must not spin.
                log.debug("orders: %r", error)
                await asyncio.sleep(retry_s)
                retry_s = min(LONGEST_RETRY_S, 2 * retry_s)

    def _obey(self, answer: dict[str, Any]) -> None:
        for order in answer["end"]:
            session, allocation = str(order["session"]), str(order["allocation"])
            remember_s = min(_MOST_REMEMBER_S, max(0.0, float(order["remember_s"])))
            if allocation in self._ends:
                continue
            log.info("session %s is to end: %s", session, order["reason"])
            work = self._end(session, allocation, str(order["reason"])[:200], remember_s)
            self._ends[allocation] = asyncio.get_running_loop().create_task(work)

    async def _end(self, session: str, allocation: str, reason: str, remember_s: float) -> None:
        try:
            await self._agent.end_session(session, allocation, reason, remember_s)
            self._ended.add(allocation)
        except OSError as error:
            log.error("session %s could not be ended: %s; will be tried again", session, error)
        finally:
            del self._ends[allocation]
            self._changed.set()

    def _sessions(self) -> list[dict[str, object]]:
        return [
            {
                "session": session.id,
                "allocation": session.grant.allocation,
                "epoch": session.grant.epoch,
                "programs": len(session.workers),
                "held_bytes": session.page.held_bytes(),
                "unused_us": session.unused_us(),
            }
            for session in self._agent.sessions
        ]

    def _uses(self) -> list[dict[str, object]]:
        return [use for session in self._agent.sessions for use in session.uses().values()]

    def _trouble(self, error: OutboardError) -> None:
        if error.code == REMOVED:
            for session in self._agent.sessions:
                self._obey({"end": [_removed(session.id, session.grant.allocation)]})
        if error.message != self._last_trouble:
            log.error("%s; %s", error.message, error.hint)
            self._last_trouble = error.message

    def _recovered(self) -> None:
        if self._last_trouble:
            log.info("the controller answers again")
            self._last_trouble = ""


def _removed(session: str, allocation: str) -> dict[str, object]:
    return {
        "session": session,
        "allocation": allocation,
        "reason": "this server was removed from its pool",
        "remember_s": 1200,
    }
