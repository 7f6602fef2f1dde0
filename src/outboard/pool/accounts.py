"""The account of this machine's own pool: what its programs held and used, in a file of its user.

SPDX-License-Identifier: Apache-2.0

All else that the pool knows ends with it (ADR 7); this is to be asked for later. A file that fails
costs the account, never a program, and the log says so.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import pwd
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from outboard.errors import DatabaseUnavailable
from outboard.model.account import (
    DAY_US,
    KEYS,
    USED_KEYS,
    Process,
    Span,
    account_json,
    check_keys,
    interval_us,
    sum_held,
    sum_used,
)
from outboard.model.request import Session

log = logging.getLogger("outboard.pool.accounts")

_TOLD = ("session", "worker", "uid", "pid", "program", "started_us", "ended_us")
_DID = ("index", "busy_us", "calls", "peak_bytes")
_KEPT_US = 400 * DAY_US
_BUSY_S = 1.0

# `pools.seen_us` is when a pool was last heard of: what it did not end, ended then.
_TABLES = """
CREATE TABLE IF NOT EXISTS pools (id TEXT PRIMARY KEY, seen_us INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS held (
    pool TEXT NOT NULL, session TEXT NOT NULL, user_name TEXT NOT NULL, node TEXT NOT NULL,
    idx INTEGER NOT NULL, share_bytes INTEGER NOT NULL, capacity_bytes INTEGER NOT NULL,
    started_us INTEGER NOT NULL, ended_us INTEGER);
CREATE INDEX IF NOT EXISTS ix_held_session ON held (session);
CREATE TABLE IF NOT EXISTS used (
    pool TEXT NOT NULL, node TEXT NOT NULL, session TEXT NOT NULL, worker TEXT NOT NULL,
    uid INTEGER NOT NULL, pid INTEGER NOT NULL, program TEXT NOT NULL,
    started_us INTEGER NOT NULL, ended_us INTEGER,
    idx INTEGER NOT NULL, busy_us INTEGER NOT NULL, calls INTEGER NOT NULL,
    peak_bytes INTEGER NOT NULL, PRIMARY KEY (worker, idx));
"""
_ENDED = "coalesce(ended_us, (SELECT seen_us FROM pools WHERE id = pool))"
_SPANS = (
    f"SELECT user_name, node, idx, session, NULL, share_bytes, capacity_bytes, started_us, {_ENDED}"
    " FROM held WHERE started_us < ?"
)
_PROCESSES = (
    "SELECT (SELECT user_name FROM held WHERE held.session = used.session), node, idx, session,"
    f" NULL, worker, uid, pid, program, started_us, {_ENDED}, busy_us, calls, peak_bytes"
    " FROM used WHERE started_us < ?"
)


class Accounts:
    """One pool's account. `folder` None keeps it in memory."""

    def __init__(self, folder: str | None, now_us: Callable[[], int] | None = None) -> None:
        self._now_us = now_us or (lambda: time.time_ns() // 1000)
        self._pool = os.urandom(8).hex()
        self._node = socket.gethostname()
        name = f"usage-{self._node}.sqlite"  # homes may be shared by machines
        self._path = os.path.join(folder, name) if folder else ":memory:"
        try:
            self._database = _open(self._path, self._now_us())
        except sqlite3.Error as error:
            log.warning("the account of what is used cannot be kept in its file: %s", error)
            self._database = _open(":memory:", self._now_us())
        self.note({})

    def begin(self, session: Session, capacities_bytes: Sequence[int]) -> None:
        """A session holds its devices, which have so much each, from now on."""
        whose = self._pool, session.id, _user_name(session.request.uid)
        now_us = self._now_us()
        rows = [
            (*whose, device.node, device.index, device.share_bytes, capacity, now_us)
            for device, capacity in zip(session.allocation.devices, capacities_bytes, strict=True)
        ]
        self._write("INSERT INTO held VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)", rows)

    def end(self, session: Session) -> None:
        """A session holds nothing more."""
        told = (self._now_us(), session.id, self._pool)
        self._write("UPDATE held SET ended_us = ? WHERE session = ? AND pool = ?", [told])

    def note(self, uses: Mapping[str, dict[str, Any]]) -> None:
        """The pool lives, and this is what workers counted until now, as the agent tells it, by
        worker; a later word replaces the earlier."""
        self._write("INSERT OR REPLACE INTO pools VALUES (?, ?)", [(self._pool, self._now_us())])
        rows = [
            (self._pool, self._node, *(told[name] for name in _TOLD), *(did[name] for name in _DID))
            for told in uses.values()
            for did in told["devices"]
        ]
        marks = ", ".join("?" * (2 + len(_TOLD) + len(_DID)))
        self._write(f"INSERT OR REPLACE INTO used VALUES ({marks})", rows)

    def account(
        self, since: dt.datetime | None, until: dt.datetime | None, by: Sequence[str]
    ) -> dict[str, object]:
        """The API's answer for an interval: the last day, where nothing is said."""
        check_keys(by, USED_KEYS)
        now_us = self._now_us()
        first_us, last_us = interval_us(since, until, now_us)
        until_us = min(last_us, now_us)
        spans: Iterable[Span] = ()
        if not set(by) - set(KEYS):
            spans = [Span(*row) for row in self._rows(_SPANS, until_us)]
        processes = [Process(*row) for row in self._rows(_PROCESSES, until_us)]
        processes = [one for one in processes if (one.ended_us or now_us) > first_us]
        return account_json(
            first_us,
            last_us,
            by,
            sum_held(spans, first_us, until_us, by),
            sum_used(processes, first_us, until_us, by, now_us),
        )

    def close(self) -> None:
        """What is still held is not known of any more: it ends now."""
        self.note({})
        self._database.close()

    def _rows(self, statement: str, until_us: int) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(statement, (until_us,)).fetchall()
        except sqlite3.Error as error:
            raise DatabaseUnavailable(
                f"the account cannot be read: {error}", f"move it away: {self._path}"
            ) from error

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        try:
            with self._database:
                self._database.executemany(statement, rows)
        except sqlite3.Error as error:
            log.warning("what is used cannot be written down: %s", error)


def _open(path: str, now_us: int) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_BUSY_S)
    # Nothing waits for the disk: a power cut may cost the last lines, never the file.
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.executescript(_TABLES)
    with database:
        old_us = now_us - _KEPT_US
        for table in ("held", "used"):
            database.execute(f"DELETE FROM {table} WHERE started_us < ?", (old_us,))
        database.execute("DELETE FROM pools WHERE seen_us < ?", (old_us,))
    return database


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
