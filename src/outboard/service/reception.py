"""What programs and people get who ask on the socket: tickets, the state, a reload.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from outboard import __version__
from outboard.client.pool import Granted
from outboard.errors import Forbidden, ServiceWithoutGpus
from outboard.model.session_file import SessionFile
from outboard.model.ticket import LIFETIME_S, issue
from outboard.service.access import Access, Asker
from outboard.service.condition import Condition, State
from outboard.service.door import Notice, unknown_want
from outboard.service.options import ServiceOptions, options_from_json
from outboard.service.terminals import tell
from outboard.service.users import Users

# Memory that was just freed, or a pool that answers, comes within moments: not worth a line.
_QUIET_WAIT_S = 1.0


class Host(Protocol):
    """The service as the reception sees it."""

    options: ServiceOptions
    condition: Condition

    @property
    def granted(self) -> Granted | None:
        """What programs may use now."""

    @property
    def start_command(self) -> str:
        """What a person types to start the service."""

    def stir(self) -> None:
        """Somebody wants GPUs."""

    async def changed(self) -> None:
        """Return when the state has changed."""

    def reload(self, options: ServiceOptions) -> None:
        """Take other options."""


class Reception:
    """Answers requests that come in at the door."""

    def __init__(self, service: Host, access: Access) -> None:
        self._service = service
        self._access = access
        self._users = Users()
        self._last_ticket_unix = 0.0

    def expected(self, now_unix: float) -> bool:
        """Whether a program that has a ticket may not have connected yet."""
        if now_unix - self._last_ticket_unix > LIFETIME_S:
            return False
        return any(use.since_unix > now_unix - LIFETIME_S for use in self._users.living())

    def announce(self, text: str) -> None:
        """Tell something to who has a program that uses the GPUs, at his terminal."""
        tell(self._users.living(), text)

    async def answer(
        self, asker: Asker, request: dict[str, object], notice: Notice
    ) -> dict[str, object]:
        """One request's answer; raises what the asker is told instead."""
        want = request.get("want")
        refusal = self._access.refusal(asker)
        if refusal:
            raise Forbidden(refusal, "ask who administers this machine")
        if want == "ticket":
            return await self._ticket(asker, notice)
        if want == "inventory":
            return self._inventory(asker)
        if want == "status":
            return self._status(asker)
        if want == "reload" and self._access.administers(asker):
            self._service.reload(options_from_json(request.get("options")))
            return {"status": self._service.condition.to_json(time.time())}
        raise unknown_want(want)

    async def _ticket(self, asker: Asker, notice: Notice) -> dict[str, object]:
        granted = self._service.granted or await self._wake(notice)
        ending = self._service.condition.ending(time.time())
        if ending:
            await notice(ending, 0)
        use = self._users.add(asker)
        self._last_ticket_unix = use.since_unix
        return self._ticket_of(granted, asker)

    async def _wake(self, notice: Notice) -> Granted:
        """GPUs, within the time that a program waits for them."""
        service = self._service
        condition = service.condition
        loop = asyncio.get_running_loop()
        deadline = loop.time() + service.options.wake_timeout_s
        quiet_until = loop.time() + _QUIET_WAIT_S
        told = False
        if condition.state is State.ENDED:
            raise ServiceWithoutGpus(
                f"the GPU session was {condition.line(time.time())}",
                f"ask who ended it; then: {service.start_command}",
            )
        service.stir()
        while loop.time() < deadline:
            try:
                async with asyncio.timeout_at(deadline if told else min(quiet_until, deadline)):
                    await service.changed()
            except TimeoutError:
                if not told:
                    told = True
                    wait_s = service.options.wake_timeout_s
                    text = f"waiting up to {wait_s:.0f} s for a GPU: {_reason(condition)}"
                    await notice(text, wait_s)
            granted = service.granted
            if granted is not None:
                return granted
        raise ServiceWithoutGpus(
            f"the GPU service has no GPU: {_reason(condition)}", "see: outboard status"
        )

    def _inventory(self, asker: Asker) -> dict[str, object]:
        """For programs that only look: never wakes, and in standby says what there was last."""
        granted = self._service.granted
        if granted is not None:
            return self._ticket_of(granted, asker)
        condition = self._service.condition
        if condition.session is None:
            raise ServiceWithoutGpus(
                f"the GPU service has no GPU: {_reason(condition)}", "see: outboard status"
            )
        return {**condition.session.to_json(), "grant": "none", "key": "00" * 32}

    def _ticket_of(self, granted: Granted, asker: Asker) -> dict[str, object]:
        content = granted.session
        expires_unix = int(time.time()) + LIFETIME_S
        key = bytes.fromhex(content.key)
        text, ticket_key = issue(content.grant, key, asker.uid, asker.pid, expires_unix)
        return SessionFile(
            content.session,
            nodes=content.nodes,
            devices=content.devices,
            grant=text,
            key=ticket_key.hex(),
        ).to_json()

    def _status(self, asker: Asker) -> dict[str, object]:
        everything = self._access.administers(asker)
        uses = self._users.living()
        return {
            "release": __version__,
            "status": self._service.condition.to_json(time.time()),
            "processes": [
                {
                    "pid": use.pid,
                    "user": use.user,
                    "program": use.program,
                    "age_s": int(time.time() - use.since_unix),
                }
                for use in uses
                if everything or use.uid == asker.uid
            ],
            "others": 0 if everything else sum(use.uid != asker.uid for use in uses),
        }


def _reason(condition: Condition) -> str:
    return condition.reason or condition.line(time.time())
