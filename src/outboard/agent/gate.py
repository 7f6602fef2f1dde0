"""The data plane's doors: accept, read the preface, and hand over or refuse.

SPDX-License-Identifier: Apache-2.0

Reads never go past the preface: what follows belongs to the worker. Everything before the hand-over
is bounded in bytes, time and number. Beside the port there is a socket for programs on this
machine, by which they share their pinned memory with their workers. Its name is of the network
namespace, so that a container with its own cannot connect, and random, so that nobody takes it
first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable

from outboard.agent.acceptor import Acceptor
from outboard.agent.preface import HEAD, NEXT, Preface, body_bytes, parse_preface, refusal_bytes
from outboard.errors import Refusal

log = logging.getLogger("outboard.agent.gate")

PREFACE_TIMEOUT_S = 2.0
MOST_UNVERIFIED = 256

Admit = Callable[[Preface, socket.socket], Awaitable[None]]


class Gate:
    """Listens on one address, and for memory on `memory_socket`, an abstract name.

    `admit` gets a connection and its preface, or raises `Refusal`.
    """

    def __init__(self, host: str, admit: Admit, port: int = 0) -> None:
        self._admit = admit
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=128)
        self._acceptor = Acceptor(listener, self._receive, MOST_UNVERIFIED, log)
        host_taken, port_taken = listener.getsockname()[:2]
        shown = f"[{host_taken}]" if ":" in host_taken else host_taken
        self.address = f"{shown}:{port_taken}"
        self.memory_socket = f"outboard-{os.urandom(16).hex()}"
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        local.bind(b"\0" + self.memory_socket.encode())
        local.listen(128)
        self._memory_acceptor = Acceptor(local, self._receive, MOST_UNVERIFIED, log)

    async def serve(self) -> None:
        """Accept until cancelled."""
        await asyncio.gather(self._acceptor.serve(), self._memory_acceptor.serve())

    def close(self) -> None:
        """Stop listening and drop what has not been handed over."""
        self._acceptor.close()
        self._memory_acceptor.close()

    async def _receive(self, connection: socket.socket) -> None:
        with connection:
            connection.setblocking(False)
            try:
                async with asyncio.timeout(PREFACE_TIMEOUT_S):
                    head = await _exactly(connection, HEAD.size)
                    body = await _exactly(connection, body_bytes(head))
                preface = parse_preface(body)
                if (preface.purpose == "memory") != (connection.family == socket.AF_UNIX):
                    raise Refusal("malformed", f"{preface.purpose} has another door", NEXT)
                await self._admit(preface, connection)
            except (TimeoutError, ConnectionError):
                log.debug("a connection ended before its preface was complete")
            except Refusal as refusal:
                log.info("refused a program (%s): %s", refusal.code, refusal.message)
                await _refuse(connection, refusal)
            except Exception:
                log.exception("a connection could not be handed over")
                await _refuse(connection, Refusal("no_worker", "the agent failed", "see its log"))


async def _exactly(connection: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        more = await loop.sock_recv(connection, size - len(data))
        if not more:
            raise ConnectionResetError("closed")
        data += more
    return data


async def _refuse(connection: socket.socket, refusal: Refusal) -> None:
    try:
        connection.setblocking(False)
        async with asyncio.timeout(PREFACE_TIMEOUT_S):
            await asyncio.get_running_loop().sock_sendall(connection, refusal_bytes(refusal))
            # Without this, bytes of the client that were never read turn the close into a reset,
            # and the refusal may be lost with it.
            connection.shutdown(socket.SHUT_WR)
            while await asyncio.get_running_loop().sock_recv(connection, 65536):
                pass
    except (OSError, TimeoutError):
        pass  # the client left: nobody is there to be told
