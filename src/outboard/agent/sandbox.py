"""How this agent's workers are cut off: a user and a file system of their own, as far as can be.

SPDX-License-Identifier: Apache-2.0

What is possible is tried once, at the start, by a worker that starts its driver there. The rest a
worker does itself, and it needs no privilege: confinement.cpp.
"""

from __future__ import annotations

import ctypes
import os
import random
import select
import signal
import stat
import time
from collections.abc import Sequence

from outboard.agent.isolation import spawn, worker_environment
from outboard.agent.view import SCRATCH, SCRATCH_BYTES, View, gpu_devices
from outboard.errors import ConfigurationError

# Left free by systemd's table of user ids, below what user namespaces of containers use.
DEFAULT_USERS = "1879048192-1879113727"
SETTINGS = ("auto", "off")

_FEWEST_USERS = 16
_REHEARSAL_TIMEOUT_S = 60.0
_PRIO_USER = 2
_SYS_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_VERSION = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Users:
    """A range of user ids, each given to one session at a time. The first is no user but a group.

    Nobody but the kernel remembers who has one: an id that any process has is taken, be it of an
    agent before this one or of another pool of this machine.
    """

    def __init__(self, text: str) -> None:
        first, _, last = text.partition("-")
        if not (first.isdecimal() and last.isdecimal() and len(last) <= 10):
            raise ConfigurationError(f"{text!r} is no range of user ids", "like 200000-200999")
        self.group = int(first)
        self._ids = range(self.group + 1, int(last) + 1)
        if self.group < 1000 or int(last) >= (1 << 32) - 1 or len(self._ids) < _FEWEST_USERS:
            raise ConfigurationError(
                f"{text}: workers need at least {_FEWEST_USERS} user ids that are nobody's",
                "like 200000-200999",
            )
        # Not the same for two pools that start at once.
        self._next = random.SystemRandom().randrange(len(self._ids))
        self._taken: set[int] = set()

    def take(self) -> int:
        """One that no process has; raises `OSError` if there is none left."""
        for _ in self._ids:
            uid = self._ids[self._next]
            self._next = (self._next + 1) % len(self._ids)
            if uid not in self._taken and not _has_processes(uid):
                self._taken.add(uid)
                return uid
        raise OSError(f"all {len(self._ids)} user ids of workers are taken")

    def release(self, uid: int) -> None:
        """Its last worker has gone."""
        self._taken.discard(uid)


class Sandbox:
    """What every worker of an agent gets. `lacks` says what it could have, and has not."""

    def __init__(
        self,
        users: Users | None = None,
        view: View | None = None,
        lacks: Sequence[str] = (),
        *,
        off: bool = False,
    ) -> None:
        self.users = users
        self.lacks = list(lacks)
        self._view = view
        self._off = off
        self._groups = _device_groups()

    @property
    def missing(self) -> list[str]:
        """What workers are not kept from, in words for the log."""
        return [*self.lacks, "a worker's share is kept by the worker: nothing else measures"]

    @property
    def worker_options(self) -> list[str]:
        """What a worker has to be told."""
        if self._off:
            return ["--unconfined"]
        return ["--own-files"] if self._view is not None else []

    def environment(self, shared_cache: str | None) -> dict[str, str]:
        """What workers find; `shared_cache` is a folder that all of them may write."""
        if self.users is None:
            return worker_environment(shared_cache)
        # A folder that several sessions write is a way from one into another: what is compiled is
        # kept for a session's own programs, for as long as one of them runs.
        return worker_environment(SCRATCH if self._view else None, SCRATCH_BYTES // 2)

    def take(self, known: int | None = None) -> int | None:
        """A user for a session, or the one that it has, also if an agent before this one gave it.

        None where workers have none of their own. Raises `OSError`.
        """
        if self.users is None:
            return None
        uid = self.users.take() if known is None else known
        if self._view is not None:
            self._view.add(uid)
        return uid

    def release(self, uid: int | None) -> None:
        """Its last worker has gone."""
        if self.users is not None and uid is not None:
            self.users.release(uid)
            if self._view is not None:
                self._view.drop(uid)

    def enter(self, uid: int | None) -> None:
        """Put this process, a child about to become a worker, inside; raises `OSError`."""
        if self._view is not None and uid is not None:
            self._view.enter(uid)
        if self.users is not None and uid is not None:
            os.setgroups(self._groups)
            os.setresgid(self.users.group, self.users.group, self.users.group)
            os.setresuid(uid, uid, uid)


def prepare(
    setting: str, users: str, worker: str, driver: str, place: str, reads: Sequence[str] = ()
) -> Sandbox:
    """The best sandbox that this agent can give; `place` is a folder for its views' mounts.

    Raises `ConfigurationError` where a setting makes no sense.
    """
    if setting not in SETTINGS:
        raise ConfigurationError(f"isolation is {setting!r}", "write auto or off")
    if setting == "off":
        return Sandbox(lacks=["all of it: isolation = off"], off=True)
    if os.geteuid() != 0:
        return Sandbox(lacks=_unprivileged())
    ids = Users(users)
    os.makedirs(place, mode=0o700, exist_ok=True)
    folders = [os.path.dirname(path) for path in (worker, driver, os.path.realpath(driver))]
    ladder = [
        Sandbox(ids, View(place, [*folders, *reads])),
        Sandbox(ids, lacks=["workers have no file system of their own"]),
        Sandbox(lacks=["workers run as root", *_unprivileged()]),
    ]
    why: list[str] = []
    for sandbox in ladder:
        trouble = _rehearse(sandbox, worker, driver)
        if not trouble:
            sandbox.lacks += why
            return sandbox
        why = [f"because: {trouble}"]
    return Sandbox(lacks=["all of it", *why], off=True)


def _rehearse(sandbox: Sandbox, worker: str, driver: str) -> str:
    """Have a worker start its driver inside; returns why it cannot, or nothing."""
    try:
        uid = sandbox.take()
    except OSError as error:
        return error.strerror or str(error)
    words = [worker, "--driver", driver, "--rehearse", *sandbox.worker_options]
    ours, theirs = os.pipe()
    try:
        pid = spawn(words, worker_environment(None), None, theirs, lambda: sandbox.enter(uid))
    finally:
        os.close(theirs)
    said = _words_of(pid, ours)
    _, status = os.waitpid(pid, 0)
    sandbox.release(uid)
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return "" if status == 0 else (lines[-1][:400] if lines else "a worker ended without a word")


def _words_of(pid: int, pipe: int) -> bytes:
    """What a process says until it ends, which it is made to in time."""
    said = b""
    until_s = time.monotonic() + _REHEARSAL_TIMEOUT_S
    with os.fdopen(pipe, "rb", buffering=0) as stream:
        while True:
            left_s = until_s - time.monotonic()
            if not select.select([stream], [], [], max(0.0, left_s))[0]:
                os.kill(pid, signal.SIGKILL)
                return b"its driver was not ready in time"
            more = stream.read(4096)
            if not more:
                return said
            said = (said + more)[-8192:]


def _unprivileged() -> list[str]:
    """What is missing without users and file systems of their own."""
    size = ctypes.c_size_t(0)
    version = _libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, None, size, _LANDLOCK_VERSION)
    files = [] if version >= 1 else ["workers reach their user's files (no Landlock here)"]
    return ["workers share the agent's user", *files]


def _device_groups() -> list[int]:
    """The groups that GPUs are kept for, where they are; root's is none."""
    found = set()
    for path in gpu_devices():
        known = os.stat(path)
        to_group = known.st_mode & stat.S_IWGRP and not known.st_mode & stat.S_IWOTH
        if stat.S_ISCHR(known.st_mode) and to_group and known.st_gid != 0:
            found.add(known.st_gid)
    return sorted(found)


def _has_processes(uid: int) -> bool:
    try:
        os.getpriority(_PRIO_USER, uid)
    except ProcessLookupError:
        return False
    return True
