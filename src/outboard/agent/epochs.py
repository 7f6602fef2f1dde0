"""What this node must remember of allocations for as long as an old grant of theirs could come.

SPDX-License-Identifier: Apache-2.0

An allocation's epoch rises when it is taken over, resized or moved; whoever holds a grant of an
older epoch was fenced. The highest epoch seen, and that an allocation has ended, are on disk before
anything is done because of them: an agent that was killed must not forget whom it had refused.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from dataclasses import dataclass

log = logging.getLogger("outboard.agent.epochs")

# Written ahead, so that a renewal does not cost a write each time.
_AHEAD_S = 1200
_MOST_STALE_LINES = 1000


@dataclass(frozen=True, slots=True)
class Remembered:
    """The highest epoch seen of an allocation, and until when old grants of it may still come."""

    epoch: int
    until_unix: float
    ended: bool


class Epochs:
    """The memory of one node. `path` None keeps it in this process alone, as its keys are.

    The file has one JSON array per line: allocation, epoch, until, ended. Later lines count.
    """

    def __init__(self, path: str | None, now_unix: float) -> None:
        self._path = path
        self._known: dict[str, Remembered] = {}
        self._lines = 0
        if path is not None:
            self._read(path)
            self._forget(now_unix)
            self._rewrite()

    def allows(self, allocation: str, epoch: int) -> bool:
        """Whether a grant of this epoch is not older than what was seen."""
        known = self._known.get(allocation)
        return known is None or epoch >= known.epoch

    def ended(self, allocation: str) -> bool:
        known = self._known.get(allocation)
        return known is not None and known.ended

    def saw(self, allocation: str, epoch: int, expires_unix: float, now_unix: float) -> None:
        """Remember a grant that is about to be honoured; on disk when this returns."""
        known = self._known.get(allocation)
        if known is None or epoch > known.epoch or expires_unix > known.until_unix:
            self._write(allocation, Remembered(epoch, expires_unix + _AHEAD_S, False), now_unix)

    def end(self, allocation: str, epoch: int, until_unix: float, now_unix: float) -> None:
        """Remember that nothing of this allocation is to be honoured; on disk when this returns."""
        known = self._known.get(allocation)
        if known is not None:
            epoch, until_unix = max(epoch, known.epoch), max(until_unix, known.until_unix)
        self._write(allocation, Remembered(epoch, until_unix, True), now_unix)

    def _write(self, allocation: str, remembered: Remembered, now_unix: float) -> None:
        self._known[allocation] = remembered
        if self._path is None:
            self._forget(now_unix)
            return
        if self._lines >= len(self._known) + _MOST_STALE_LINES:
            self._forget(now_unix)
            self._rewrite()
            return
        line = _line(allocation, remembered)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            if os.write(descriptor, line) != len(line):
                self._lines += _MOST_STALE_LINES  # half a line is there: the next write makes anew
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        self._lines += 1

    def _forget(self, now_unix: float) -> None:
        self._known = {
            name: known for name, known in self._known.items() if known.until_unix > now_unix
        }

    def _read(self, path: str) -> None:
        try:
            with open(path, "rb") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                allocation, epoch, until_unix, ended = json.loads(line)
                self._known[str(allocation)] = Remembered(
                    int(epoch), float(until_unix), bool(ended)
                )
            except (ValueError, TypeError):
                # The last line of an agent that was killed while it wrote: nothing was done yet
                # because of it.
                log.warning("%s: a line that is not whole was passed over", path)

    def _rewrite(self) -> None:
        assert self._path is not None
        temporary = f"{self._path}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.writelines(_line(name, known) for name, known in self._known.items())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, self._path)
        folder = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._lines = len(self._known)


def _line(allocation: str, remembered: Remembered) -> bytes:
    fields = [allocation, remembered.epoch, remembered.until_unix, remembered.ended]
    return json.dumps(fields).encode() + b"\n"
