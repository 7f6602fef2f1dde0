"""A program that runs in a machine while things happen to it: started, spoken to, ended.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import select
from types import TracebackType
from typing import Self

from tests.machines.guest import GUARD_S, PROGRAMS, USER, Guest, Hang

KEEPER = f"{PROGRAMS}/keeper.py"


class Running:
    """`keeper.py` in a login shell. Ended at the end of its block, whatever became of it."""

    def __init__(self, guest: Guest) -> None:
        self._process = guest.start(["su", "-l", USER, "-c", f"exec python3 {KEEPER}"])
        self._unread = b""

    def __enter__(self) -> Self:
        self.expect("READY")
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._process.kill()  # `su` passes no signal on, but a closed stdin ends the program
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(GUARD_S)

    def add(self) -> str:
        """One more kernel; the program's line."""
        stdin = self._process.stdin
        assert stdin is not None
        os.write(stdin.fileno(), b"\n")
        return self.line()

    def finish(self) -> str:
        """The program compares; its last line."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.line()

    def line(self, guard_s: float = 2 * GUARD_S) -> str:
        """The next line of output that is no message of the shim."""
        stdout = self._process.stdout
        assert stdout is not None
        while True:
            line, newline, rest = self._unread.partition(b"\n")
            if newline:
                self._unread = rest
                if not line.startswith(b"outboard:"):
                    return line.decode()
                continue
            if not select.select([stdout], [], [], guard_s)[0]:
                raise Hang(f"the program has said nothing for {guard_s:.0f} s")
            more = os.read(stdout.fileno(), 1 << 16)
            if not more:
                raise AssertionError(f"the program has ended: {self._unread!r}")
            self._unread += more

    def expect(self, wanted: str) -> None:
        found = self.line()
        assert found == wanted, found
