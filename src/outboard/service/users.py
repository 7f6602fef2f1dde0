"""Which processes hold tickets, so that the use of a shared session is known by user and process.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from outboard.service.access import Asker

_MOST = 4096


@dataclass(frozen=True, slots=True)
class Use:
    """A process that was given a ticket. `started` with the pid names a process for good;
    `terminal` is the device number of its controlling terminal, 0 if it has none."""

    pid: int
    uid: int
    user: str
    program: str
    terminal: int
    started: int
    since_unix: float


class Users:
    """The processes that have a ticket and live."""

    def __init__(self) -> None:
        self._uses: dict[int, Use] = {}

    def add(self, asker: Asker) -> Use:
        """Note that this process gets a ticket."""
        program, terminal, started = _process(asker.pid)
        use = Use(asker.pid, asker.uid, asker.user, program, terminal, started, time.time())
        if len(self._uses) >= _MOST:
            self.living()
        self._uses[asker.pid] = use
        return use

    def living(self) -> list[Use]:
        """Those that still run, the oldest first."""
        self._uses = {
            pid: use for pid, use in self._uses.items() if _process(pid)[2] == use.started != 0
        }
        return list(self._uses.values())


def _process(pid: int) -> tuple[str, int, int]:
    """(name, terminal, start time in clock ticks since boot); the time is 0 if there is no such
    process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return "", 0, 0
    # The name may hold blanks and parentheses: fields are counted from the last one.
    name = text.partition("(")[2].rpartition(")")[0]
    fields = text.rpartition(")")[2].split()
    if fields[0] in ("Z", "X"):
        return name, 0, 0
    shown = "".join(letter if letter.isprintable() else "?" for letter in name)
    return shown, int(fields[4]), int(fields[19])
