"""HTTP/1.1 with JSON over one connection, a Unix socket's or a TLS one, one request at a time.

SPDX-License-Identifier: Apache-2.0

Not `http.client`: importing it alone takes a quarter of the time that the launcher may take in all.
"""

from __future__ import annotations

import json
import socket

from outboard.errors import PoolUnreachable, error_from_problem

ANSWER_TIMEOUT_S = 30.0
_LARGEST_ANSWER_BYTES = 32 << 20


class PoolConnection:
    """A connection to a pool. As long as it is open, the pool keeps what was granted over it."""

    def __init__(self, connected: socket.socket, name: str, token: str = "") -> None:
        """`name` is the pool's address for messages; the socket is this object's from now on."""
        self.name = name
        self._socket = connected
        self._buffer = b""
        self._authorization = f"Authorization: Bearer {token}\r\n" if token else ""

    @classmethod
    def over_unix(cls, path: str) -> PoolConnection:
        """Connect to a pool of this machine; raises `PoolUnreachable` if nobody listens."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(ANSWER_TIMEOUT_S)
            connection.connect(path)
        except OSError as error:
            connection.close()
            raise PoolUnreachable(
                f"nobody answers at {path}: {error.strerror or error}",
                "see whether the pool runs: outboard pool status",
            ) from error
        return cls(connection, path)

    def call(
        self,
        method: str,
        path: str,
        body: dict[str, object] | None = None,
        timeout_s: float | None = ANSWER_TIMEOUT_S,
    ) -> dict[str, object]:
        """One request and its answer.

        Raises what the pool says (any `OutboardError`), or `PoolUnreachable` if the connection
        breaks or nothing comes within `timeout_s`.
        """
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: pool\r\n{self._authorization}"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(f"{head}\r\n".encode() + data)
            status, answer = self._receive()
        except TimeoutError as error:
            raise PoolUnreachable(
                f"the pool at {self.name} does not answer", "see its log: outboard pool status"
            ) from error
        except (OSError, ValueError) as error:
            raise PoolUnreachable(
                f"the connection to the pool at {self.name} broke: {error}", "run the command again"
            ) from error
        if status >= 400:
            raise error_from_problem(answer, status)
        return answer

    def closed_by_pool(self) -> bool:
        """Whether the pool has closed its end; never waits."""
        try:
            self._socket.settimeout(0)
            # Nothing is expected between two answers. (TLS has no MSG_PEEK.)
            received = self._socket.recv(4096)
            self._buffer += received
            return received == b""
        except OSError as error:
            return not _would_block(error)

    def wait_closed(self, timeout_s: float) -> bool:
        """Whether the pool closes its end within that time."""
        self._socket.settimeout(timeout_s)
        try:
            self._socket.recv(1)
        except TimeoutError:
            return False
        except OSError:
            pass  # it ended in another way
        return True

    def close(self) -> None:
        """Close; what was granted over this connection and not released ends with it."""
        self._socket.close()

    def _receive(self) -> tuple[int, dict[str, object]]:
        while b"\r\n\r\n" not in self._buffer:
            self._read_more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        size = 0
        for line in lines:
            name, _, value = line.partition(":")
            if name.lower() == "content-length":
                size = int(value)
        # In pieces: of megabytes, adding to one text copies it again and again.
        pieces, have = [self._buffer], len(self._buffer)
        while have < min(size, _LARGEST_ANSWER_BYTES):
            pieces.append(self._receive_some())
            have += len(pieces[-1])
        whole = b"".join(pieces)
        if len(whole) > _LARGEST_ANSWER_BYTES:
            raise ValueError("the answer is too large")
        body, self._buffer = whole[:size], whole[size:]
        answer = json.loads(body) if body else {}
        if not isinstance(answer, dict):
            raise ValueError("the answer is not an object")
        return int(first.split(" ")[1]), answer

    def _read_more(self) -> None:
        self._buffer += self._receive_some()
        if len(self._buffer) > _LARGEST_ANSWER_BYTES:
            raise ValueError("the answer is too large")

    def _receive_some(self) -> bytes:
        more = self._socket.recv(1 << 18)
        if not more:
            raise ConnectionResetError("closed by the pool")
        return more


def _would_block(error: OSError) -> bool:
    """Whether nothing is there yet; over TLS that has an error of its own (SSL_ERROR_WANT_READ)."""
    return isinstance(error, BlockingIOError) or type(error).__name__ == "SSLWantReadError"
