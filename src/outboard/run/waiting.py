"""What a waiting user sees: one line that stays the last one, or a line where nothing can stay.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sys


class WaitLine:
    """Tells how a request stands. On a terminal the line is rewritten in place and goes at the end;
    elsewhere a new line is written only when the reason has changed."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._told = ""
        try:
            self._live = sys.stderr.isatty()
        except (OSError, ValueError):
            self._live = False

    def tell(self, standing: dict[str, object]) -> None:
        """`standing` is the API's: position, reason and starts, each null where it is unknown."""
        position, starts = standing.get("position"), standing.get("starts")
        place = f"number {position} in the queue" if position else "in the queue"
        line = f"waiting, {place}: {standing.get('reason') or 'N/A'}; starts {starts or 'N/A'}"
        if self._quiet or line == self._told:
            return
        self._told = line
        self._write(f"\r\x1b[Koutboard: {line}" if self._live else f"outboard: {line}\n")

    def end(self) -> None:
        """Take a live line away."""
        if self._live and self._told:
            self._write("\r\x1b[K")
        self._told = ""

    @staticmethod
    def _write(text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):
            pass  # stderr is closed: the program matters, not the message
