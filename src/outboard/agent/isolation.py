"""Starts processes that are cut off.

SPDX-License-Identifier: Apache-2.0

A worker is taken to be its client's puppet: kernels can write its memory. What is done here needs
no tool and no privilege: a session of its own, no new privileges, limits, a clean environment, no
descriptor but its own. What takes root is `outboard.agent.sandbox`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

CONTROL_FD = 3

_PR_SET_NO_NEW_PRIVS = 38
_MOST_DESCRIPTORS = 65536
_PASSED_PREFIXES = ("SOFTGPU_", "OUTBOARD_WORKER_", "OUTBOARD_TRACE")
_PASSED_NAMES = ("ASAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS", "TZ")

_libc = ctypes.CDLL(None, use_errno=True)


def worker_environment(cache_folder: str | None, cache_bytes: int | None = None) -> dict[str, str]:
    """The whole environment of a worker: nothing of the user's but what tunes the worker itself.

    The driver's own cache of compiled code lies in a folder, so large at most, or is off.
    """
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    for name, value in os.environ.items():
        if name.startswith(_PASSED_PREFIXES) or name in _PASSED_NAMES:
            environment[name] = value
    if cache_folder:
        environment["CUDA_CACHE_PATH"] = os.path.join(cache_folder, "compute")
        if cache_bytes is not None:
            environment["CUDA_CACHE_MAXSIZE"] = str(cache_bytes)
    else:
        environment["CUDA_CACHE_DISABLE"] = "1"
    return environment


def spawn(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    control_fd: int | None,
    log_fd: int,
    enter: Callable[[], None] | None = None,
) -> int:
    """Fork and execute; returns the child's pid.

    `control_fd` becomes descriptor 3; stdout and stderr go to `log_fd`. The child calls `enter` as
    the last thing before it executes. The caller runs one thread alone. A failure to execute is a
    line on `log_fd` and exit code 127.
    """
    child = os.fork()
    if child:
        return child
    try:
        _become(arguments, environment, control_fd, log_fd, enter)
    except BaseException as error:  # never return into the parent's code
        os.write(2, f"{arguments[0]}: cannot be executed: {error}\n".encode())
    finally:
        os._exit(127)


def restrict() -> None:
    """Take from this process what a worker must not have, and give it what it needs."""
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    raise_soft_limits()


def raise_soft_limits() -> None:
    """Lift the soft limits that the launching shell happened to have: address windows are large."""
    # Workers with a user of their own pin memory without root's right to.
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_MEMLOCK, resource.RLIMIT_DATA):
        hard = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (hard, hard))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _become(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    control_fd: int | None,
    log_fd: int,
    enter: Callable[[], None] | None,
) -> NoReturn:
    os.setsid()
    os.chdir("/")
    # Both are copied above the low numbers first, so that placing one cannot overwrite the other.
    log = _above_low_numbers(log_fd)
    control = None if control_fd is None else _above_low_numbers(control_fd)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    first_closed = CONTROL_FD
    if control is not None:
        os.dup2(control, CONTROL_FD)
        first_closed += 1
    os.closerange(first_closed, os.sysconf("SC_OPEN_MAX"))
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
        if signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    # Ignored on purpose: the agent may end before the worker, and its log pipe with it.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    restrict()
    if enter is not None:
        enter()
    os.execve(arguments[0], list(arguments), dict(environment))


def _above_low_numbers(descriptor: int) -> int:
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
