"""argparse as this command line uses it: errors are ours, options are never abbreviated.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import NoReturn

from outboard.errors import UsageError


class Parser(argparse.ArgumentParser):
    """A parser that raises `UsageError`, and whose help opens with examples."""

    def __init__(self, command: str, summary: str, examples: str) -> None:
        super().__init__(
            prog=f"outboard {command}",
            description=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._command = command
        self.examples = examples

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"see what there is: outboard {self._command} --help")

    def format_help(self) -> str:
        """Examples first, then usage and options."""
        return f"Examples:\n{self.examples}\n{super().format_help()}"


def print_json(document: object) -> None:
    """Write a document for programs to read."""
    # Not json.dump: it writes a text as every comma and every word.
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Write rows in columns as wide as they need; the last is not padded."""
    widths = [max(len(row[at]) for row in [header, *rows]) for at in range(len(header))]
    for row in [header, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
