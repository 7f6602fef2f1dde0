"""How this agent's workers are cut off: a user and a file system of their own, as far as can be.

SPDX-License-Identifier: Apache-2.0

What is possible is tried once, at the start, by a child that does it and looks whether a worker
could live there. The rest a worker does itself, and it needs no privilege: confinement.cpp.
"""

from __future__ import annotations

import ctypes
import os
import random
import stat
from collections.abc import Sequence

from outboard.agent.view import View, gpu_devices
from outboard.errors import ConfigurationError

# Left free by systemd's table of user ids, below what user namespaces of containers use.
DEFAULT_USERS = "1879048192-1879113727"
SETTINGS = ("auto", "off")

_FEWEST_USERS = 16
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

    def release(self, uid: int | None) -> None:
        """Its last worker has gone."""
        if uid is not None:
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

    def enter(self, uid: int | None) -> None:
        """Put this process, a child about to become a worker, inside; raises `OSError`."""
        if self._view is not None:
            self._view.enter()
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
    needed = [os.path.dirname(worker), os.path.dirname(driver), *reads]
    needed.append(os.path.dirname(os.path.realpath(driver)))
    best, less = Sandbox(ids, View(place, needed)), Sandbox(ids)
    uid = ids.take()
    trouble = _trouble(best, uid, worker, driver)
    trouble_of_user = trouble and _trouble(less, uid, worker, driver)
    ids.release(uid)
    if not trouble:
        return best
    # What does not go together may go alone.
    if not trouble_of_user:
        return Sandbox(ids, None, [f"workers have no file system of their own ({trouble})"])
    return Sandbox(lacks=[f"workers run as root ({trouble_of_user})", *_unprivileged()])


def _trouble(sandbox: Sandbox, uid: int, worker: str, driver: str) -> str:
    """Why a worker could not live there; empty if it could."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        said = "it ended"
        try:
            sandbox.enter(uid)
            said = _lacking(worker, driver)
        except OSError as error:
            said = error.strerror or str(error)
        finally:
            os.write(theirs, said.encode())
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        said = pipe.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    return said


def _lacking(worker: str, driver: str) -> str:
    if not os.access(worker, os.X_OK):
        return f"{worker} cannot be executed by others than its owner"
    if not os.access(driver, os.R_OK):
        return f"{driver} cannot be read by others than its owner"
    return ""


def _unprivileged() -> list[str]:
    """What is missing without users and file systems of their own."""
    size = ctypes.c_size_t(0)
    version = _libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, None, size, _LANDLOCK_VERSION)
    files = [] if version >= 1 else ["workers reach their user's files (no Landlock here)"]
    return ["workers share the agent's user", *files]


def _device_groups() -> list[int]:
    """The groups that GPUs are kept for, where they are."""
    found = set()
    for path in gpu_devices():
        known = os.stat(path)
        if stat.S_ISCHR(known.st_mode) and not known.st_mode & stat.S_IWOTH:
            found.add(known.st_gid)
    return sorted(found)


def _has_processes(uid: int) -> bool:
    try:
        os.getpriority(_PRIO_USER, uid)
    except ProcessLookupError:
        return False
    return True
