"""The API: routes, bodies, answers (docs/reference/pool-api.md).

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

from outboard import __version__
from outboard.controller.controller import Controller
from outboard.controller.http import Connection, HttpRequest, Peer
from outboard.errors import MalformedRequest, NotFound, SessionsActive
from outboard.model.request import Request, Session, Share, is_holder_hash

# What was held and used between two times (the last day), summed by keys.
Account = Callable[[dt.datetime | None, dt.datetime | None, list[str]], dict[str, object]]
Route = Callable[[HttpRequest, Connection], Awaitable[tuple[int, object]]]


class Api:
    """Routes requests to the controller. `stop` is called when a client asks the pool to end,
    `keep` when it is to stay until then."""

    def __init__(
        self,
        controller: Controller,
        stop: Callable[[], None],
        keep: Callable[[], None],
        describe: Callable[[], dict[str, object]],
        account: Account,
    ) -> None:
        self._account = account
        self._keep = keep
        self._controller = controller
        self._stop = stop
        self._describe = describe
        self._started_unix = time.time()
        self._routes: dict[tuple[str, str], Route] = {
            ("GET", "/healthz"): self._health,
            ("GET", "/v1/status"): self._status,
            ("GET", "/v1/devices"): self._devices,
            ("GET", "/v1/sessions"): self._sessions,
            ("GET", "/v1/usage"): self._usage,
            ("POST", "/v1/requests"): self._request,
            ("POST", "/v1/sessions/{id}/renew"): self._renew,
            ("POST", "/v1/sessions/{id}/takeover"): self._take_over,
            ("DELETE", "/v1/sessions/{id}"): self._end,
            ("POST", "/v1/stop"): self._stop_pool,
            ("POST", "/v1/keep"): self._keep_pool,
        }

    async def handle(self, request: HttpRequest, connection: Connection) -> tuple[int, object]:
        """Answer one request: (HTTP status, body)."""
        parts = request.path.partition("?")[0].split("/")
        if len(parts) > 3 and parts[1:3] == ["v1", "sessions"]:
            parts[3] = "{id}"
        route = self._routes.get((request.method, "/".join(parts)))
        if route is None:
            raise NotFound(
                f"{request.method} {request.path} is nothing that this machine's own pool does",
                "it takes one with a controller: outboard controller init, or outboard login URL",
            )
        return await route(request, connection)

    async def _health(self, request: HttpRequest, connection: Connection) -> tuple[int, object]:
        return 200, {"ok": True}

    async def _status(self, request: HttpRequest, connection: Connection) -> tuple[int, object]:
        ledger = self._controller.ledger
        return 200, {
            "release": __version__,
            "pid": os.getpid(),
            "started": _iso(self._started_unix),
            "ending": self._controller.ending,
            "nodes": [node.to_json() for node in ledger.nodes.values()],
            "sessions": len(ledger.sessions),
            "waiting": self._controller.waiting,
            **self._describe(),
        }

    async def _devices(self, request: HttpRequest, connection: Connection) -> tuple[int, object]:
        ledger = self._controller.ledger
        devices = []
        for node in ledger.nodes.values():
            for device in node.devices:
                granted = ledger.granted_bytes(node.name, device.index)
                users = [
                    session.id
                    for session in ledger.sessions.values()
                    for granted_device in session.allocation.devices
                    if (granted_device.node, granted_device.index) == (node.name, device.index)
                ]
                devices.append(
                    {
                        "node": node.name,
                        "software": node.software,
                        **device.to_json(),
                        "granted_bytes": granted,
                        "free_bytes": device.capacity_bytes - granted,
                        "sessions": users,
                    }
                )
        return 200, {"devices": devices}

    async def _sessions(self, request: HttpRequest, connection: Connection) -> tuple[int, object]:
        sessions = self._controller.ledger.sessions.values()
        return 200, {"sessions": [self._describe_session(session) for session in sessions]}

    async def _usage(self, request: HttpRequest, connection: Connection) -> tuple[int, object]:
        asked = dict(parse_qsl(request.path.partition("?")[2]))
        by = asked.get("by", "user").split(",")
        return 200, self._account(_time(asked, "since"), _time(asked, "until"), by)

    async def _request(self, request: HttpRequest, connection: Connection) -> tuple[int, object]:
        asked = _request_from(request.body, connection.peer)
        if _body(request).get("dry_run") is True:
            states = self._controller.ledger.device_states()
            return 200, self._controller.rehearse(asked).to_json(asked, states)
        session = await self._controller.request(asked)
        if not session.lease.holder_sha256:
            connection.on_close.append(lambda: self._controller.holder_lost(session.id))
        return 201, {**self._grant(session), **self._described_grant(session)}

    async def _renew(self, request: HttpRequest, connection: Connection) -> tuple[int, object]:
        holder = str(_body(request).get("holder", ""))
        return 200, self._grant(self._controller.renew(request.path.split("/")[3], holder))

    async def _take_over(self, request: HttpRequest, connection: Connection) -> tuple[int, object]:
        body = _body(request)
        holder, new = str(body.get("holder", "")), str(body.get("holder_sha256", ""))
        if not is_holder_hash(new):
            raise MalformedRequest("holder_sha256 is not 64 hexadecimal digits")
        session = self._controller.take_over(request.path.split("/")[3], holder, new)
        return 200, {**self._grant(session), **self._described_grant(session)}

    async def _end(self, request: HttpRequest, connection: Connection) -> tuple[int, object]:
        session = self._controller.active_session(request.path.split("/")[3])
        reason = _body(request).get("reason")
        if reason is None:
            await self._controller.end(session, "released")
        else:
            reason = _printable(str(reason)[:200])
            await self._controller.end_by_administrator(session, reason)
        return 200, {"session": session.id}

    async def _keep_pool(self, request: HttpRequest, connection: Connection) -> tuple[int, object]:
        self._keep()
        return await self._status(request, connection)

    async def _stop_pool(self, request: HttpRequest, connection: Connection) -> tuple[int, object]:
        body = _body(request)
        count = len(self._controller.ledger.sessions)
        if count and body.get("force") is not True:
            raise SessionsActive(
                f"the pool has {count} session{'' if count == 1 else 's'}",
                "wait for them, or end them with it: outboard pool stop --force",
            )
        await self._controller.close("the pool was stopped")
        self._stop()
        return 200, {"ended_sessions": count}

    def _grant(self, session: Session) -> dict[str, object]:
        content, expires_unix = self._controller.session_file(session)
        return {
            "session": content.to_json(),
            "grant_expires_unix": expires_unix,
            "lease_s": self._controller.lease_s,
            "programs": session.lease.programs,
        }

    def _described_grant(self, session: Session) -> dict[str, object]:
        node = self._controller.ledger.nodes[session.allocation.devices[0].node]
        return {
            "allocation": session.allocation.id,
            "epoch": session.allocation.epoch,
            "software": node.software,
            "total_bytes": [
                self._controller.ledger.device(device).total_bytes
                for device in session.allocation.devices
            ],
        }

    def _describe_session(self, session: Session) -> dict[str, object]:
        held = self._controller.held_bytes(session)
        return {
            "id": session.id,
            "state": session.state.value,
            "allocation": session.allocation.id,
            "epoch": session.allocation.epoch,
            "uid": session.request.uid,
            "pid": session.request.pid,
            "program": session.request.program,
            "started": _iso(session.started_unix),
            "age_s": int(time.time() - session.started_unix),
            "held": session.lease.held,
            "programs": session.lease.programs,
            "devices": [
                {
                    "node": device.node,
                    "index": device.index,
                    "share_bytes": device.share_bytes,
                    "held_bytes": None if held is None else held[number],
                }
                for number, device in enumerate(session.allocation.devices)
            ],
        }


def _body(request: HttpRequest) -> dict[str, object]:
    return request.body if isinstance(request.body, dict) else {}


def _request_from(body: object, peer: Peer) -> Request:
    """The request in a body; uid and pid are the kernel's word, not the client's."""
    if not isinstance(body, dict):
        raise MalformedRequest("the body is not an object")
    known = {"id", "gpus", "share", "wait_s", "program", "holder_sha256", "dry_run"}
    unknown = set(body) - known
    if unknown:
        raise MalformedRequest(f"unknown field {', '.join(sorted(unknown))}")
    share = body.get("share") or {}
    if not isinstance(share, dict) or set(share) - {"millionths", "bytes"}:
        raise MalformedRequest("share is an object with millionths or bytes")
    wait_s = body.get("wait_s")
    if wait_s is not None and (not isinstance(wait_s, int | float) or wait_s < 0):
        raise MalformedRequest("wait_s is a number of seconds, or null to wait without limit")
    return Request(
        id=str(body.get("id", "")),
        gpus=_whole(body, "gpus") or 0,
        share=Share(_whole(share, "millionths"), _whole(share, "bytes")),
        wait_s=wait_s,
        uid=peer.uid,
        pid=peer.pid,
        program=_printable(str(body.get("program", ""))[:200]),
        holder_sha256=str(body.get("holder_sha256", "")),
    )


def _whole(record: dict[str, object], name: str) -> int | None:
    value = record.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise MalformedRequest(f"{name} is not a whole number")
    return value


def _time(asked: dict[str, str], name: str) -> dt.datetime | None:
    """A time of the query."""
    if name not in asked:
        return None
    try:
        return dt.datetime.fromisoformat(asked[name])
    except ValueError:
        raise MalformedRequest(f"{name} is not a time", "write 2026-11-01T08:00:00Z") from None


def _printable(text: str) -> str:
    """Text as logs and tables may show it: it is a user's, and may hold anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _iso(unix: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix))
