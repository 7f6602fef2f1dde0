"""A private PostgreSQL: its own folder, a Unix socket only, gone with the tests.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

HANG_GUARD_S = 60.0


class Postgres:
    """A running server. `url` makes a new, empty database every time."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.folder = folder
        self._durable = durable
        self._databases = 0
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server on its folder and wait until it takes connections."""
        command = [str(_program("postgres")), "-D", str(self.folder / "data")]
        command += ["-k", str(self.folder), "-c", "listen_addresses="]
        command += ["-c", "max_connections=200"]
        if not self._durable:
            # What is tested is what concurrent transactions see, not what a power cut leaves.
            command += ["-c", "fsync=off", "-c", "full_page_writes=off"]
        with open(self.folder / "log", "ab") as log:
            self._server = subprocess.Popen(command, stdout=log, stderr=log, **_unprivileged())
        deadline = time.monotonic() + HANG_GUARD_S
        while True:
            try:
                self._administer("SELECT 1")
                return
            except psycopg.OperationalError:
                assert self._server.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, "PostgreSQL did not start"
                time.sleep(0.02)

    def stop(self) -> None:
        """End the server at once, as a machine that fails would."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(HANG_GUARD_S)
            self._server = None

    def pids(self) -> list[int]:
        """The server's processes."""
        assert self._server is not None
        children = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children")
        return [self._server.pid, *map(int, children.read_text(encoding="ascii").split())]

    def url(self) -> str:
        """The address of a new, empty database."""
        self._databases += 1
        name = f"ledger{self._databases}"
        self._administer(f"CREATE DATABASE {name}")
        return f"postgresql:///{name}?host={self.folder}&user=outboard"

    def _administer(self, statement: str) -> None:
        target = f"host={self.folder} user=outboard dbname=postgres"
        with psycopg.connect(target, autocommit=True) as connection:
            connection.execute(statement)


@contextlib.contextmanager
def private_postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """A server for the time of the context; a durable one keeps what it has over a power cut."""
    folder = Path(tempfile.mkdtemp(prefix="ob-pg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, pwd.getpwnam("nobody").pw_uid)
        subprocess.run(
            [
                *(str(_program("initdb")), "-D", str(folder / "data"), "-U", "outboard"),
                *("--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"),
            ],
            check=True,
            capture_output=True,
            cwd=folder,
            **_unprivileged(),
        )
        server = Postgres(folder, durable=durable)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    return {"user": "nobody"} if os.geteuid() == 0 else {}


def _program(name: str) -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if found:
        return found[-1]
    path = shutil.which(name)
    assert path, f"{name} is missing: apt-get install postgresql"
    return Path(path)
