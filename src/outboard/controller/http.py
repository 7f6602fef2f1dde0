"""A small HTTP/1.1 server for one Unix socket: JSON in, JSON out, one request at a time each.

SPDX-License-Identifier: Apache-2.0

A connection means something here: it can hold a lease. So its end is an event that handlers see at
once, also while an answer is still being waited for.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from outboard.errors import MalformedRequest, OutboardError

log = logging.getLogger("outboard.controller.http")

LARGEST_HEAD_BYTES = 16 * 1024
LARGEST_BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as its handler sees it; `body` is decoded JSON, None where there was none."""

    method: str
    path: str
    body: object
    id: str


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the kernel says."""

    pid: int
    uid: int
    gid: int


@dataclass(slots=True)
class Connection:
    """One client's connection; `on_close` is called once when it ends, however it ends."""

    peer: Peer
    on_close: list[Callable[[], None]] = field(default_factory=list)


Handler = Callable[[HttpRequest, Connection], Awaitable[tuple[int, object]]]


async def serve_unix(path: str, handler: Handler) -> asyncio.Server:
    """Listen on a Unix socket that only its owner can use."""
    before = os.umask(0o177)
    try:
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(lambda: _HttpProtocol(handler), path, backlog=128)
    finally:
        os.umask(before)


class _HttpProtocol(asyncio.Protocol):
    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self._connection: Connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connection = Connection(_peer(transport.get_extra_info("socket")))
        if self._connection.peer.uid not in (0, os.geteuid()):
            transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > LARGEST_HEAD_BYTES + LARGEST_BODY_BYTES:
            self._transport.abort()
        elif self._task is None:
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        for callback in self._connection.on_close:
            callback()

    def _next(self) -> None:
        """Start on the request at the front of the buffer, if it is complete."""
        try:
            parsed = _parse(self._buffer)
        except OutboardError as error:
            self._write(*problem(error, ""), close=True)
            return
        if parsed is None:
            return
        request, self._buffer = parsed
        self._task = asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: HttpRequest) -> None:
        try:
            status, body = await self._handler(request, self._connection)
        except OutboardError as error:
            status, body = problem(error, request.id)
        except Exception:
            log.exception("%s %s failed (request %s)", request.method, request.path, request.id)
            failure = OutboardError("the pool failed", "its log says more: outboard pool status")
            status, body = problem(failure, request.id)
        self._task = None
        if not self._transport.is_closing():
            self._write(status, body)
            self._next()

    def _write(self, status: int, body: object, *, close: bool = False) -> None:
        kind = "application/problem+json" if status >= 400 else "application/json"
        data = b"" if body is None else json.dumps(body, ensure_ascii=False).encode() + b"\n"
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(data)}"]
        lines += ["Connection: close"] if close else []
        self._transport.write("\r\n".join([*lines, "", ""]).encode() + data)
        if close:
            self._transport.close()


def problem(error: OutboardError, request_id: str) -> tuple[int, dict[str, object]]:
    """An error in the one shape that errors have (RFC 9457)."""
    return error.http_status, {
        "type": f"urn:outboard:error:{error.code}",
        "title": HTTPStatus(error.http_status).phrase,
        "status": error.http_status,
        "detail": error.message,
        "code": error.code,
        "hint": error.hint,
        "request_id": request_id,
    }


def _parse(buffer: bytes) -> tuple[HttpRequest, bytes] | None:
    head, separator, rest = buffer.partition(b"\r\n\r\n")
    if not separator:
        if len(buffer) > LARGEST_HEAD_BYTES:
            raise MalformedRequest("the request's head is too long")
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise MalformedRequest("not an HTTP/1.1 request")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise MalformedRequest("chunked bodies are not taken")
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > LARGEST_BODY_BYTES:
        raise MalformedRequest("the body's length is missing or too large")
    size = int(length)
    if len(rest) < size:
        return None
    try:
        body = json.loads(rest[:size]) if size else None
    except (ValueError, RecursionError):
        raise MalformedRequest("the body is not JSON") from None
    return HttpRequest(parts[0], parts[1], body, os.urandom(8).hex()), rest[size:]


def _peer(connection: socket.socket) -> Peer:
    form = struct.Struct("3i")
    return Peer(
        *form.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, form.size))
    )
