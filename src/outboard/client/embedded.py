"""Starts this machine's own pool, or finds the one that runs.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import os
import sys
import time

from outboard.client.http import PoolConnection
from outboard.directories import pool_socket
from outboard.errors import OutboardError, PoolStartFailed, PoolUnreachable, error_from_problem

START_TIMEOUT_S = 90.0
_KEPT_PREFIXES = ("OUTBOARD_", "SOFTGPU_", "XDG_", "LC_")
_KEPT_NAMES = ("HOME", "LANG", "PATH", "TMPDIR", "TZ")
_KEPT_SANITIZERS = ("ASAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS")


def connect_embedded(runtime: str) -> PoolConnection:
    """A connection to the pool of this runtime folder, which is started if it does not run.

    Launchers that start at the same time agree by a lock: one starts the pool, the others wait.
    """
    path = pool_socket(runtime)
    try:
        return PoolConnection.over_unix(path)
    except PoolUnreachable:
        pass
    import fcntl

    lock = os.open(
        os.path.join(runtime, "start.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                return PoolConnection.over_unix(path)
            except PoolUnreachable as error:
                if time.monotonic() > deadline:
                    raise PoolStartFailed(error.message, error.hint) from error
            # A pool that is ending holds its lock for a moment longer: then the new one leaves at
            # once and this loop comes round again.
            _start_pool(runtime)
            time.sleep(0.01)
    finally:
        os.close(lock)


def _start_pool(runtime: str) -> None:
    """Start the daemon and wait until it serves; raises what it says if it cannot."""
    ready_read, ready_write = os.pipe()
    try:
        arguments = [sys.executable, "-P", "-s", "-m", "outboard.pool", "--runtime", runtime]
        spawn_detached([*arguments, "--ready-fd", str(ready_write)], ready_write)
    finally:
        os.close(ready_write)
    with os.fdopen(ready_read, "rb") as pipe:
        _wait_readable(pipe.fileno(), runtime)
        line = pipe.readline()
    if not line:
        raise PoolStartFailed("this machine's pool ended while it started", _log_hint())
    outcome = json.loads(line)
    if "error" in outcome:
        problem = {**outcome, "detail": outcome.get("message"), "code": outcome["error"]}
        error: OutboardError = error_from_problem(problem, 503)
        error.hint = error.hint or _log_hint()
        raise error


def spawn_detached(arguments: list[str], ready_fd: int) -> None:
    """Run a program as nobody's child, with `ready_fd` alone: it outlives this one and leaves it
    no zombie."""
    environment = _daemon_environment()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.set_inheritable(ready_fd, True)
        os.closerange(3, ready_fd)
        os.closerange(ready_fd + 1, os.sysconf("SC_OPEN_MAX"))
        os.chdir("/")
        os.execve(arguments[0], arguments, environment)
    finally:
        os._exit(127)


def _daemon_environment() -> dict[str, str]:
    """What the pool needs of this environment, and nothing that belongs to one program alone."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_KEPT_PREFIXES) or name in (*_KEPT_NAMES, *_KEPT_SANITIZERS)
    }
    kept.pop("OUTBOARD_SESSION", None)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if os.path.basename(root) not in ("site-packages", "dist-packages"):
        kept["PYTHONPATH"] = root  # a checkout: it may be on nobody's path but ours
    return kept


def _wait_readable(descriptor: int, runtime: str) -> None:
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(START_TIMEOUT_S * 1000):
        raise PoolStartFailed(
            f"this machine's pool ({runtime}) was not ready after {START_TIMEOUT_S:.0f} s",
            _log_hint(),
        )


def _log_hint() -> str:
    from outboard.directories import state_directory

    folder = state_directory()
    return f"its log says more: tail {folder}/pool.log" if folder else "set HOME to have a log"
