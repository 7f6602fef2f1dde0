"""A pool as its clients see it: find it, ask it, hold what it grants.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os

from outboard.client.embedded import connect_embedded
from outboard.client.http import PoolConnection
from outboard.directories import pool_socket, runtime_directory
from outboard.errors import ConfigurationError, PoolEnding, PoolUnreachable
from outboard.model.session_file import SessionFile, parse_session
from outboard.settings import Settings

_STARTS = 3


class Granted:
    """What a request was granted: the session, and what is worth telling about it."""

    def __init__(self, answer: dict[str, object]) -> None:
        self.session: SessionFile = parse_session(answer["session"])
        self.grant_expires_unix = float(str(answer["grant_expires_unix"]))
        self.software = bool(answer.get("software"))
        total = answer.get("total_bytes")
        self.total_bytes = [int(value) for value in total] if isinstance(total, list) else []


class Pool:
    """A pool and one connection to it. `embedded` tells that it is this machine's own."""

    def __init__(self, connection: PoolConnection, *, embedded: bool) -> None:
        self._connection = connection
        self.embedded = embedded

    def request(
        self,
        gpus: int,
        share: dict[str, object],
        wait_s: float | None,
        program: str,
        request_id: str,
    ) -> Granted:
        """Ask for GPUs; held until `release` or until this object's connection ends.

        `share` is `{}`, `{"millionths": n}` or `{"bytes": n}`; `wait_s` None waits without limit.
        """
        body: dict[str, object] = {
            "id": request_id,
            "gpus": gpus,
            "share": share,
            "wait_s": wait_s,
            "program": program,
        }
        timeout_s = None if wait_s is None else wait_s + 30
        return Granted(self._connection.call("POST", "/v1/requests", body, timeout_s))

    def renew(self, session: str) -> Granted:
        """A fresh grant of the same session."""
        return Granted(self._connection.call("POST", f"/v1/sessions/{session}/renew"))

    def release(self, session: str) -> None:
        """End the session; returns once its memory is free for others."""
        self._connection.call("DELETE", f"/v1/sessions/{session}")

    def get(self, path: str) -> dict[str, object]:
        """A GET of the API."""
        return self._connection.call("GET", path)

    def stop(self, *, force: bool) -> dict[str, object]:
        """End the pool itself; with `force` also if it has sessions."""
        return self._connection.call("POST", "/v1/stop", {"force": force})

    def lost(self) -> bool:
        """Whether the pool has closed the connection; never waits."""
        return self._connection.closed_by_pool()

    def close(self) -> None:
        self._connection.close()


def open_pool(settings: Settings, *, start: bool = True) -> Pool:
    """The configured pool; without any configuration, this machine's own, started if need be.

    A configured pool that does not answer is an error, never a reason for another one.
    """
    configured = settings.find("pool")
    if configured is not None:
        return _open_configured(*configured)
    runtime = runtime_directory()
    if start:
        return Pool(connect_embedded(runtime), embedded=True)
    return Pool(PoolConnection(pool_socket(runtime)), embedded=True)


def acquire(
    settings: Settings,
    gpus: int,
    share: dict[str, object],
    wait_s: float | None,
    program: str,
) -> tuple[Pool, Granted]:
    """Open the pool and ask it. An embedded pool that ends at this very moment is started anew."""
    request_id = os.urandom(16).hex()
    for attempt in range(_STARTS):
        pool = open_pool(settings)
        try:
            return pool, pool.request(gpus, share, wait_s, program, request_id)
        except (PoolUnreachable, PoolEnding):
            pool.close()
            if not pool.embedded or attempt == _STARTS - 1:
                raise
        except BaseException:
            pool.close()
            raise
    raise AssertionError("unreachable")


def _open_configured(url: str, source: str) -> Pool:
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        if not os.path.isabs(path):
            raise ConfigurationError(
                f"{source}: the pool is {url!r}", "write unix: and an absolute path"
            )
        return Pool(PoolConnection(path), embedded=False)
    scheme, separator, rest = url.partition("://")
    host, _, port = rest.partition("/")[0].rpartition(":")
    if scheme != "https" or not separator or not host or not port.isdecimal():
        raise ConfigurationError(
            f"{source}: the pool is {url!r}",
            "write https://HOST:PORT, or unix:/path/to/pool.sock; without it this machine's own"
            " pool is used",
        )
    import socket

    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=3).close()
    except OSError as error:
        raise PoolUnreachable(
            f"the pool {url} (from {source}) does not answer: {error.strerror or error}",
            f"check that the controller runs and that {host} port {port} can be reached; to use"
            " this machine's own pool, take the setting away",
        ) from error
    raise ConfigurationError(
        f"{source}: release 0.1 cannot use a pool at an https address yet",
        "use unix:/path/to/pool.sock, or take the setting away to use this machine's own pool",
    )
