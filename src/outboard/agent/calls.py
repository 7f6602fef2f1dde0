"""Listens for workers whose agent died and who look for the next one.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import Callable

from outboard.agent.acceptor import Acceptor

log = logging.getLogger("outboard.agent.calls")

_LARGEST_CALL_BYTES = 1024
_CALL_TIMEOUT_S = 2.0
_MOST_OPEN = 256

Answer = Callable[[int, str, socket.socket], bool]


class WorkerCalls:
    """The agent's socket; `answer` takes a worker's pid, its id and its control socket, or not."""

    def __init__(self, path: str, answer: Answer, group: int | None = None) -> None:
        """With `group`, that is the workers'."""
        self._answer = answer
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(path)
        os.chmod(path, 0o600 if group is None else 0o660)
        if group is not None:
            os.chown(path, -1, group)
        listener.listen(1024)
        self._acceptor = Acceptor(listener, self._receive, _MOST_OPEN, log)

    async def serve(self) -> None:
        """Accept until cancelled."""
        await self._acceptor.serve()

    def close(self) -> None:
        self._acceptor.close()

    async def _receive(self, connection: socket.socket) -> None:
        kept = False
        try:
            connection.setblocking(False)
            pid = _pid_of(connection)
            async with asyncio.timeout(_CALL_TIMEOUT_S):
                data = await asyncio.get_running_loop().sock_recv(connection, _LARGEST_CALL_BYTES)
            message = json.loads(data)
            if message["type"] == "adopt":
                kept = self._answer(pid, str(message["id"]), connection)
            log.info("process %d called: %s", pid, "adopted" if kept else "not a worker of ours")
        except (TimeoutError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.info("a call on the workers' socket made no sense: %r", error)
        finally:
            if not kept:
                connection.close()


def _pid_of(connection: socket.socket) -> int:
    form = struct.Struct("3i")
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, form.size)
    return int(form.unpack(data)[0])
