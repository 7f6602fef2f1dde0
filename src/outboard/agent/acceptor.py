"""Accepts connections on a listening socket and serves each in a task, a bounded number at a time.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any

Receive = Callable[[socket.socket], Coroutine[Any, Any, None]]


class Acceptor:
    """Takes over `listener`; `receive` owns each connection that it is given."""

    def __init__(
        self, listener: socket.socket, receive: Receive, most_open: int, log: logging.Logger
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._receive = receive
        self._most_open = most_open
        self._log = log
        self._open: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Accept until cancelled; what comes beyond the bound is closed at once."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                # Out of descriptors, most likely: what is open has to end before there are more.
                self._log.error("cannot accept: %s", error.strerror)
                await asyncio.sleep(0.1)
                continue
            if len(self._open) >= self._most_open:
                connection.close()
                continue
            task = loop.create_task(self._receive(connection))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    def close(self) -> None:
        """Stop listening and drop what has not been handed over."""
        self._listener.close()
        for task in self._open:
            task.cancel()
