"""The service's socket: one line of JSON asked, lines of JSON answered (docs/internals/service.md).

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable

from outboard.errors import MalformedRequest, OutboardError
from outboard.service.access import Asker, asker_of

log = logging.getLogger("outboard.service")

VERSION = 1
REQUEST_TIMEOUT_S = 10.0
MOST_OPEN = 512
_LARGEST_REQUEST_BYTES = 16 << 10

Notice = Callable[[str, float], Awaitable[None]]
Answer = Callable[[Asker, dict[str, object], Notice], Awaitable[dict[str, object]]]


class Door:
    """Reads one request of each connection and writes what `answer` makes of it."""

    def __init__(self, listener: socket.socket, answer: Answer) -> None:
        self._listener = listener
        self._answer = answer
        self._open = 0

    async def serve(self) -> None:
        """Answer until cancelled. The listener is the caller's and stays open."""
        self._listener.setblocking(False)
        server = await asyncio.start_unix_server(
            self._receive, sock=self._listener.dup(), limit=_LARGEST_REQUEST_BYTES
        )
        async with server:
            await server.serve_forever()

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MOST_OPEN:
                await self._converse(reader, writer)
        except (ConnectionError, TimeoutError, asyncio.LimitOverrunError, ValueError):
            pass  # a client that left, or that does not speak this: nobody to tell
        except Exception:
            log.exception("a request could not be answered")
        finally:
            self._open -= 1
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asker = asker_of(writer.get_extra_info("socket"))

        async def say(record: dict[str, object]) -> None:
            writer.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            await writer.drain()

        async def notice(text: str, wait_s: float) -> None:
            await say({"notice": text, "wait_s": round(wait_s)})

        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            line = await reader.readline()
        if not line:
            return
        # Who leaves while he waits must not keep the service awake for him.
        answering = asyncio.ensure_future(self._answer(asker, _parse(line), notice))
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                await say(answering.result())
        except OutboardError as error:
            await say({"error": error.code, "message": error.message, "hint": error.hint})
        finally:
            answering.cancel()
            leaving.cancel()


def _parse(line: bytes) -> dict[str, object]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or record.get("version") != VERSION:
        return {"want": "nothing"}
    return record


def unknown_want(want: object) -> MalformedRequest:
    """What a request gets that this release does not know."""
    return MalformedRequest(
        f"the GPU service does not know what {want!r:.40} is",
        "use programs and the service of one release: restart the service after an upgrade",
    )
