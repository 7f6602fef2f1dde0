"""A pool as its clients see it: find it, ask it, hold what it grants.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from outboard.client.embedded import connect_embedded
from outboard.client.http import ANSWER_TIMEOUT_S, PoolConnection
from outboard.directories import pool_socket, runtime_directory
from outboard.errors import (
    ConfigurationError,
    OutboardError,
    PoolBusy,
    PoolEnding,
    PoolUnreachable,
    UsageError,
    WaitedTooLong,
)
from outboard.model.session_file import SessionFile, parse_session
from outboard.settings import Settings
from outboard.units import format_duration

_STARTS = 3
_HOLD_S = 20
_FIRST_HOLD_S, _FOLLOW_S = 1.0, 5.0


class Granted:
    """What a request was granted: the session, and what is worth telling about it.

    `renew_every_s` is how often the pool wants to hear of the holder; None where the connection
    itself is the sign. `ends_s` is what is left of the longest time that the pool gives a session,
    `notice` what its user should be told now, `token_expires` when the user's token ends, if soon.
    """

    def __init__(self, answer: dict[str, object]) -> None:
        self.session: SessionFile = parse_session(answer["session"])
        self.grant_expires_unix = float(str(answer["grant_expires_unix"]))
        every = answer.get("renew_every_s")
        self.renew_every_s = float(str(every)) if every is not None else None
        self.software = bool(answer.get("software"))
        total = answer.get("total_bytes")
        self.total_bytes = [int(value) for value in total] if isinstance(total, list) else []
        self.epoch = int(str(answer.get("epoch", 0)))
        self.lease_s = float(str(answer.get("lease_s", 180)))
        ends = answer.get("ends_s")
        self.ends_s = float(str(ends)) if ends is not None else None
        self.programs = int(str(answer.get("programs", 0)))
        self.notice = str(answer.get("notice", ""))
        self.token_expires = str(answer.get("token_expires", ""))


class Queueing:
    """How a controller is asked: wishes beside number and share, how long to wait (None: without
    limit), and who hears meanwhile how the request stands."""

    def __init__(
        self,
        wishes: dict[str, object],
        wait_s: float | None,
        on_wait: Callable[[dict[str, object]], None],
    ) -> None:
        self.wishes = wishes
        self.wait_s = wait_s
        self.on_wait = on_wait


class Pool:
    """A pool and one connection to it. `embedded` tells that it is this machine's own.

    With `connect` a connection that broke is replaced: what was granted over it does not hang on
    it, and every call may be repeated.
    """

    def __init__(
        self,
        connection: PoolConnection,
        *,
        embedded: bool,
        connect: Callable[[], PoolConnection] | None = None,
    ) -> None:
        self._connection = connection
        self._connect = connect
        self.embedded = embedded

    @property
    def resumable(self) -> bool:
        """Whether a session outlives the connection on which it was granted."""
        return self._connect is not None

    def ask(
        self,
        request_id: str,
        wish: dict[str, object],
        wait_s: float | None,
        on_wait: Callable[[dict[str, object]], None],
    ) -> Granted:
        """Ask a controller for GPUs, and wait as long as `wait_s` says (None: without limit).

        `wish` is what the API's body says besides; `on_wait` hears how the request stands: its
        position, the reason, when it may start. Who stops waiting takes the request back.
        """
        body = {"id": request_id, "wait_s": wait_s, "uid": os.getuid(), "pid": os.getpid(), **wish}
        deadline = None if wait_s is None else time.monotonic() + wait_s
        # Who waits for longer than a moment wants to see that, and how the queue moves.
        body["hold_s"] = _FIRST_HOLD_S
        answer = self._call("POST", "/v1/requests", body, _HOLD_S + ANSWER_TIMEOUT_S)
        path = f"/v1/requests/{request_id}"
        try:
            while answer.get("state") == "waiting":
                on_wait(answer)
                left_s = _FOLLOW_S if deadline is None else deadline - time.monotonic()
                if left_s <= 0:
                    raise _ended_without({**answer, "state": "timed_out"}, wait_s)
                follow = f"{path}?hold_s={min(_FOLLOW_S, left_s):.3f}"
                answer = self._call("GET", follow, timeout_s=_HOLD_S + ANSWER_TIMEOUT_S)
        except BaseException:
            with contextlib.suppress(OutboardError):
                self._call("DELETE", path)
            raise
        if "session" not in answer:
            raise _ended_without(answer, wait_s)
        return Granted(answer)

    def request(
        self,
        gpus: int,
        share: dict[str, object],
        wait_s: float | None,
        program: str,
        request_id: str,
        holder_sha256: str = "",
    ) -> Granted:
        """Ask for GPUs; held until `release` or until this object's connection ends.

        With `holder_sha256`, the hash of a secret, it is held by renewals with that secret instead.
        `share` is `{}`, `{"millionths": n}` or `{"bytes": n}`; `wait_s` None waits without limit.
        """
        body: dict[str, object] = {
            "id": request_id,
            "gpus": gpus,
            "share": share,
            "wait_s": wait_s,
            "program": program,
        }
        if holder_sha256:
            body["holder_sha256"] = holder_sha256
        timeout_s = None if wait_s is None else wait_s + 30
        answer = self._call("POST", "/v1/requests", body, timeout_s)
        while answer.get("state") == "waiting":
            # A controller does not hold a call for ever; each of these is a sign of life as well.
            path = f"/v1/requests/{request_id}?hold_s={_HOLD_S}"
            answer = self._call("GET", path, None, _HOLD_S + ANSWER_TIMEOUT_S)
        if "session" not in answer:
            raise _ended_without(answer, wait_s)
        return Granted(answer)

    def rehearse(
        self, gpus: int, share: dict[str, object], wishes: dict[str, object]
    ) -> dict[str, object]:
        """What would become of such a request now; nothing is changed. Raises its refusal."""
        self.require_understood(wishes)
        told = {"id": os.urandom(16).hex(), "gpus": gpus, "share": share, "dry_run": True}
        return self._call("POST", "/v1/requests", {**told, **wishes})

    def require_understood(self, wishes: dict[str, object]) -> None:
        """Raises `UsageError` for what only a controller knows."""
        if wishes and not self.resumable:
            raise UsageError(
                f"this machine's own pool does not know {', '.join(sorted(wishes))}",
                "leave it out, or use a pool that has a controller: outboard login URL",
            )

    def renew(self, session: str, holder: str = "", timeout_s: float = ANSWER_TIMEOUT_S) -> Granted:
        """A fresh grant of the same session; raises `Stale` if another holder has it."""
        body: dict[str, object] | None = {"holder": holder} if holder else None
        return Granted(self._call("POST", f"/v1/sessions/{session}/renew", body, timeout_s))

    def take_over(self, session: str, holder: str, holder_sha256: str) -> Granted:
        """Become the holder of a session whose last holder's secret is known."""
        body: dict[str, object] = {"holder": holder, "holder_sha256": holder_sha256}
        return Granted(self._call("POST", f"/v1/sessions/{session}/takeover", body))

    def call(
        self, method: str, path: str, body: dict[str, object] | None = None
    ) -> dict[str, object]:
        """Any other call of the API."""
        return self._call(method, path, body)

    def release(self, session: str) -> None:
        """End the session; returns once its memory is free for others."""
        self._call("DELETE", f"/v1/sessions/{session}")

    def get(self, path: str) -> dict[str, object]:
        """A GET of the API."""
        return self._call("GET", path)

    def stop(self, *, force: bool) -> dict[str, object]:
        """End the pool itself; with `force` also if it has sessions. Returns once it has ended."""
        answer = self._call("POST", "/v1/stop", {"force": force})
        if not self._connection.wait_closed(ANSWER_TIMEOUT_S):
            raise PoolUnreachable(
                f"the pool was told to stop and has not ended after {ANSWER_TIMEOUT_S:.0f} s",
                "see what it does: outboard pool status",
            )
        return answer

    def keep(self) -> dict[str, object]:
        """Have this machine's own pool stay until it is stopped; returns its status."""
        return self._call("POST", "/v1/keep")

    def lost(self) -> bool:
        """Whether the pool has gone, and its sessions with it; never waits."""
        return self._connect is None and self._connection.closed_by_pool()

    def close(self) -> None:
        self._connection.close()

    def _call(
        self,
        method: str,
        path: str,
        body: dict[str, object] | None = None,
        timeout_s: float | None = ANSWER_TIMEOUT_S,
    ) -> dict[str, object]:
        if self._connect is not None and self._connection.closed_by_pool():
            self._connection.close()
            self._connection = self._connect()
        try:
            return self._connection.call(method, path, body, timeout_s)
        except PoolUnreachable:
            if self._connect is None:
                raise
        self._connection.close()
        self._connection = self._connect()
        return self._connection.call(method, path, body, timeout_s)


def _ended_without(answer: dict[str, object], wait_s: float | None) -> OutboardError:
    """Why a request that waited has no grant."""
    reason = str(answer.get("reason") or answer.get("state"))
    if answer.get("state") == "timed_out" and wait_s:
        return WaitedTooLong(
            f"no GPU within {format_duration(wait_s or 0)}: {reason}",
            "wait longer (--wait 1h), ask for less (-p 0.25), or see who has them:"
            " outboard sessions",
        )
    return PoolBusy(f"the pool is busy: {reason}", "run the command again")


def open_pool(settings: Settings, *, start: bool = True) -> Pool:
    """The configured pool; without any configuration, this machine's own, started if need be.

    A configured pool that does not answer is an error, never a reason for another one.
    """
    configured = settings.find("pool")
    if configured is not None:
        return _open_configured(settings, *configured)
    runtime = runtime_directory()
    if start:
        return Pool(connect_embedded(runtime), embedded=True)
    return Pool(PoolConnection.over_unix(pool_socket(runtime)), embedded=True)


def acquire(
    settings: Settings,
    gpus: int,
    share: dict[str, object],
    wait_s: float | None,
    program: str,
    queue: Queueing | None = None,
) -> tuple[Pool, Granted]:
    """Open the pool and ask it. An embedded pool that ends at this very moment is started anew.

    A controller is asked once, with what `queue` says; `wait_s` is for other pools.
    """
    request_id = os.urandom(16).hex()
    queue = queue or Queueing({}, wait_s, lambda _standing: None)
    for attempt in range(_STARTS):
        pool = open_pool(settings)
        try:
            if pool.resumable:
                wish = {"gpus": gpus, "share": share, "program": program, **queue.wishes}
                return pool, pool.ask(request_id, wish, queue.wait_s, queue.on_wait)
            pool.require_understood(queue.wishes)
            return pool, pool.request(gpus, share, wait_s, program, request_id)
        except (PoolUnreachable, PoolEnding):
            pool.close()
            if not pool.embedded or attempt == _STARTS - 1:
                raise
        except BaseException:
            pool.close()
            raise
    raise AssertionError("unreachable")


def _open_configured(settings: Settings, url: str, source: str) -> Pool:
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        if not os.path.isabs(path):
            raise ConfigurationError(
                f"{source}: the pool is {url!r}", "write unix: and an absolute path"
            )
        return Pool(PoolConnection.over_unix(path), embedded=False)
    from outboard.client import remote  # ssl costs the launcher milliseconds: only where it is used

    remote.parse_urls(url, source)
    token, authority = settings.find("token"), settings.find("authority")
    if token is None or authority is None:
        raise ConfigurationError(
            f"{source}: the pool is {url}, and there is no token for it",
            f"sign in: outboard login {url}; as a machine: outboard join TOKEN {url}",
        )
    pem = remote.read_authority(*authority)

    def connect() -> PoolConnection:
        return remote.connect(url, pem, token[0], source)

    return Pool(connect(), embedded=False, connect=connect)
