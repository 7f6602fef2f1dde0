"""A program of a session that stays connected while a test talks through it to its worker.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
from typing import Any

from tests.unit.conftest import HANG_GUARD_S
from tests.unit.fakes import program


class Program:
    """A connected program of a session."""

    def __init__(self, session: dict[str, Any]) -> None:
        self.session = session
        self.connection = program.connect(session, program.preface(session))
        self.connection.settimeout(HANG_GUARD_S)
        self._lines = self.connection.makefile("rb")
        self.welcome = json.loads(self._lines.readline().removeprefix(b"OUTW"))

    def say(self, line: bytes) -> bytes:
        self.connection.sendall(line + b"\n")
        return self._lines.readline()

    def hear(self) -> bytes:
        return self._lines.readline()

    def bulk(self) -> bytes:
        data = program.preface(self.session, purpose="bulk", worker=self.welcome["id"])
        with program.connect(self.session, data) as connection:
            connection.settimeout(HANG_GUARD_S)
            return connection.recv(4096)

    def close(self) -> None:
        self._lines.close()
        self.connection.close()
