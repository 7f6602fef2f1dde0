"""Holds the service's allocation: asks for it, takes it over, renews it, gives it back.

SPDX-License-Identifier: Apache-2.0

Blocking, one call at a time; the daemon runs it in a thread of its own.
"""

from __future__ import annotations

import hashlib

from outboard.client.http import ANSWER_TIMEOUT_S
from outboard.client.pool import Granted, Pool, open_pool
from outboard.errors import NotFound, OutboardError, RequestError, Stale
from outboard.service.lease_file import LeaseFile, LeaseRecord, new_record, taking_over
from outboard.service.options import ServiceOptions
from outboard.settings import load_settings

# How long one request waits at the pool before the service says again why it has no GPU.
QUEUE_S = 60.0


class Holder:
    """The holder's side of one lease."""

    def __init__(self, path: str, program: str) -> None:
        self._file = LeaseFile(path)
        self._program = program
        self._pool: Pool | None = None

    def obtain(self, options: ServiceOptions) -> Granted:
        """The session of the last holder if it lives, else a new one. Raises any `OutboardError`:
        what is `busy` or `waited_too_long` was asked for and is not to be had now."""
        record = self._file.read()
        if record is not None and record.session:
            granted = self._take_over(record)
            if granted is not None:
                return granted
            record = None
        if record is None or not same_wish(record, options):
            record = new_record(options.gpus, options.share)
            self._file.write(record)
        try:
            granted = self._connected().request(
                record.gpus,
                dict(record.share),
                QUEUE_S,
                self._program,
                record.request,
                _sha256(record.holder),
            )
        except RequestError:
            self.forget()  # the pool has answered it: it would say the same again
            raise
        self._write_session(record, granted)
        return granted

    def renew(self, lease_s: float) -> Granted:
        """A fresh grant, and the lease from its beginning. A pool that is silent for a renewal's
        share of the lease is given up for this time: there may be a better connection to it."""
        record = self._record()
        patience_s = min(ANSWER_TIMEOUT_S, lease_s / 6)
        return self._connected().renew(record.session, record.holder, patience_s)

    def fits(self, options: ServiceOptions) -> bool:
        """Whether what is held is what the options ask for."""
        record = self._file.read()
        return record is not None and same_wish(record, options)

    def release(self) -> None:
        """Give back what is held, if anything; its programs end."""
        record = self._file.read()
        try:
            if record is not None and record.session:
                self._connected().release(record.session)
        except NotFound:
            pass  # it ended before
        finally:
            self.forget()

    def forget(self) -> None:
        """The session is over: there is nothing to take over any more."""
        self._file.write(None)

    def disconnect(self) -> None:
        """Drop the connection; the next call makes another."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _take_over(self, record: LeaseRecord) -> Granted | None:
        """The session under a new secret; None if it is over or another's."""
        if not record.next_holder:
            record = taking_over(record)
            self._file.write(record)
        new = _sha256(record.next_holder)
        for known in reversed(record.holders):
            try:
                granted = self._connected().take_over(record.session, known, new)
            except Stale:
                continue
            except NotFound:
                break
            self._write_session(
                LeaseRecord(
                    record.request, record.gpus, record.share, record.next_holder, record.session
                ),
                granted,
            )
            return granted
        self.forget()
        return None

    def _write_session(self, record: LeaseRecord, granted: Granted) -> None:
        self._file.write(
            LeaseRecord(
                record.request, record.gpus, record.share, record.holder, granted.session.session
            )
        )

    def _record(self) -> LeaseRecord:
        record = self._file.read()
        if record is None or not record.session:
            raise NotFound("the record of the lease is gone", "")
        return record

    def _connected(self) -> Pool:
        if self._pool is not None and self._pool.lost():
            self.disconnect()
        if self._pool is None:
            self._pool = open_pool(load_settings())
        return self._pool


def same_wish(record: LeaseRecord, options: ServiceOptions) -> bool:
    """Whether the record's allocation is what the options ask for."""
    return (record.gpus, record.share) == (options.gpus, options.share)


def release_left_over(path: str) -> OutboardError | None:
    """Release what a service that has ended held; returns why that failed, None if it did not."""
    holder = Holder(path, "")
    try:
        holder.release()
    except OutboardError as error:
        return error
    finally:
        holder.disconnect()
    return None


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
