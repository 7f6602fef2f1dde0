"""Copies of the ledger: made while the controller works, put back so that nothing is granted twice.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import shutil
import sqlite3

import sqlalchemy as sa

from outboard.errors import ConfigurationError
from outboard.ledger import allocations
from outboard.ledger.database import Database, lock_file
from outboard.ledger.requests import Terms


def back_up(url: str, path: str) -> None:
    """Copy a SQLite ledger, as it is at one moment, to a new file; its controller may be running.

    Raises `ConfigurationError` for PostgreSQL, which has its own means.
    """
    source_path = _file_of(url, "pg_dump --format=custom --file FILE DATABASE")
    partial = f"{path}.partial"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    try:
        source = sqlite3.connect(f"file:{source_path}?mode=ro", uri=True)
        target = sqlite3.connect(partial)
        try:
            source.backup(target)
        finally:
            target.close()
            source.close()
        os.rename(partial, path)
    except (sqlite3.Error, OSError) as error:
        os.unlink(partial)
        raise ConfigurationError(
            f"{source_path} cannot be copied to {path}: {error}", "name another file"
        ) from error


def put_back(url: str, path: str, terms: Terms | None = None) -> int:
    """Make a copy the ledger, and begin its epochs anew; returns their base.

    No controller may run on it. The ledger that was there is kept beside, as `….before-restore`.
    For PostgreSQL the copy has to be put back already; `path` is not looked at.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        _replace(_file_of(url, ""), path)
    database = Database(url)
    try:
        reason = f"restored from {os.path.basename(path)}"
        return database.write(lambda tx: allocations.restore(tx, reason, terms or Terms()))
    finally:
        database.close()


def _replace(place: str, path: str) -> None:
    lock = lock_file(place)
    try:
        check = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            (found,) = check.execute("PRAGMA integrity_check").fetchone()
            check.execute("SELECT version_num FROM alembic_version").fetchone()
        finally:
            check.close()
        if found != "ok":
            raise ConfigurationError(f"{path} is damaged: {found}", "use another backup")
        fresh = f"{place}.restoring"
        shutil.copyfile(path, fresh)
        os.chmod(fresh, 0o600)
        for ending in ("-wal", "-shm"):
            if os.path.exists(place + ending):
                os.rename(place + ending, f"{place}.before-restore{ending}")
        if os.path.exists(place):
            os.rename(place, f"{place}.before-restore")
        os.rename(fresh, place)
    except (sqlite3.Error, OSError) as error:
        raise ConfigurationError(
            f"{path} cannot be put back: {error}", "name a file that `backup` made"
        ) from error
    finally:
        os.close(lock)


def _file_of(url: str, instead: str) -> str:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise ConfigurationError("this ledger is not a SQLite file", f"use {instead}")
    return parsed.database
