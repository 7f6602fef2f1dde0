"""Asks for a session and holds it: its file, its renewals, its release.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from outboard.client.pool import Granted, Pool, Queueing, acquire
from outboard.directories import runtime_directory, sessions_directory
from outboard.errors import OutboardError, PoolBusy, PoolUnreachable, SessionFileUnreadable
from outboard.model.session_file import write_session_file
from outboard.settings import load_settings
from outboard.units import format_duration

# Memory that a program just freed comes back within moments: not worth a message.
_QUIET_WAIT_S = 1.0
_LONGEST_PROGRAM_TEXT = 200
_TICK_S = 30.0
_RETRY_S = 5.0
_LONGEST_WARNING_S = 300.0

Say = Callable[[str], None]


class Wish:
    """What is asked for. `share` and `further` are as the pool's API takes them."""

    def __init__(
        self,
        gpus: int,
        share: dict[str, object],
        wait_s: float | None,
        further: dict[str, object],
        program: str,
    ) -> None:
        self.gpus = gpus
        self.share = share
        self.wait_s = wait_s
        self.further = further
        # Bounded, and without what moves a cursor: the pool's lists show it to others.
        shown = program[:_LONGEST_PROGRAM_TEXT]
        self.program = "".join(letter if letter.isprintable() else "?" for letter in shown)


def obtain(
    wish: Wish, say: Say, on_wait: Callable[[dict[str, object]], None]
) -> tuple[Pool, Granted]:
    """Ask the pool, and wait as the wish allows; what takes long is told."""
    settings = load_settings()
    queue = Queueing(wish.further, wish.wait_s, on_wait)
    quiet_s = _QUIET_WAIT_S if wish.wait_s is None else min(_QUIET_WAIT_S, wish.wait_s)
    started = time.monotonic()
    try:
        return acquire(settings, wish.gpus, wish.share, quiet_s, wish.program, queue)
    except OutboardError as error:
        spent_s = time.monotonic() - started
        if not _would_wait(error, wish.wait_s, spent_s):
            raise
        say(f"the pool is busy, waiting: {error.message.partition(': ')[2]}")
    left_s = None if wish.wait_s is None else max(0.0, wish.wait_s - spent_s)
    return acquire(settings, wish.gpus, wish.share, left_s, wish.program, queue)


class HeldSession:
    """A granted session while somebody holds it. `say` hears what its user should know."""

    def __init__(self, pool: Pool, granted: Granted, say: Say) -> None:
        self.session = granted.session.session
        folder = sessions_directory(runtime_directory())
        self.path = os.path.join(folder, f"{self.session}.json")
        self.over = False
        self._pool = pool
        self._say = say
        self._told_silence = False
        self._told_notice = False
        self._renew_at_unix = 0.0
        self._ends_unix: float | None = None
        # A fifth of its time before its end, five minutes at most, its user is told of that.
        self._warn_s = min(_LONGEST_WARNING_S, (granted.ends_s or 0.0) / 5)
        self._told_end = False
        self._note_end(granted)

    def write(self, granted: Granted) -> None:
        """Put the session's file in place, with the grant that is fresh now."""
        try:
            write_session_file(self.path, granted.session)
        except OSError as error:
            raise SessionFileUnreadable(
                f"the session file {self.path} cannot be written: {error.strerror}",
                "make room there, or name another folder in OUTBOARD_RUNTIME_DIR",
            ) from error
        now_unix = time.time()
        self._renew_at_unix = (now_unix + granted.grant_expires_unix) / 2
        if granted.renew_every_s is not None:
            self._renew_at_unix = min(self._renew_at_unix, now_unix + granted.renew_every_s)

    def tick(self) -> float:
        """Keep the grant fresh, and notice if the pool has gone; returns when to come back."""
        if self.over:
            return _TICK_S
        if self._pool.lost():
            self.over = True
            self._say(
                f"the pool has gone: session {self.session} takes no new programs, those that"
                " run may lose their GPU"
            )
        elif time.time() >= self._renew_at_unix:
            self._renew()
        self._tell_end()
        next_unix = self._renew_at_unix
        if self._ends_unix is not None and not self._told_end:
            next_unix = min(next_unix, self._ends_unix - self._warn_s)
        return min(_TICK_S, max(0.1, next_unix - time.time()))

    def release(self) -> None:
        """Give everything back; a failure here must not hide a program's exit code."""
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
        try:
            if not self.over:
                self._pool.release(self.session)
        except OutboardError as error:
            if error.code == PoolUnreachable.code:
                silent = "does not answer: its lease will run out"
                what = silent if self._pool.resumable else "ended"
                self._say(f"the pool of session {self.session} {what}")
            elif error.code != "not_found":
                self._say(f"session {self.session} was not released: {error.message}")
        self._pool.close()

    def _note_end(self, granted: Granted) -> None:
        self._ends_unix = None if granted.ends_s is None else time.time() + granted.ends_s

    def _tell_end(self) -> None:
        left_s = None if self._ends_unix is None else self._ends_unix - time.time()
        if self.over or self._told_end or left_s is None or left_s > self._warn_s:
            return
        self._told_end = True
        self._say(
            f"session {self.session} ends in {format_duration(max(0.0, left_s))}, as the pool"
            " limits its time; programs that run then lose their GPUs"
        )

    def _renew(self) -> None:
        try:
            granted = self._pool.renew(self.session)
            self.write(granted)
        except OutboardError as error:
            if self._pool.resumable and error.code == PoolUnreachable.code:
                # Programs that run do not notice, and the session lives for as long as they do.
                if not self._told_silence:
                    self._say(f"{error.message}; trying again, the program goes on")
                self._told_silence = True
                self._renew_at_unix = time.time() + _RETRY_S
                return
            self.over = True
            self._say(f"session {self.session} was not renewed: {error.message}")
        else:
            self._told_silence = False
            self._note_end(granted)
            # Its figures change with each renewal; that it is warned is told once.
            if granted.notice and not self._told_notice:
                self._say(granted.notice)
            self._told_notice = bool(granted.notice)


def _would_wait(error: OutboardError, wait_s: float | None, spent_s: float) -> bool:
    """Whether this refusal is only the end of the first, quiet wait."""
    if error.code not in ("waited_too_long", PoolBusy.code):
        return False
    return wait_s is None or wait_s > spent_s
