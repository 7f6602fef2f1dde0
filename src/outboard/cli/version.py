"""`outboard version`: the release.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from outboard import __version__
from outboard.cli.parser import Parser, print_json


def version_command(words: list[str]) -> int:
    """Print the release."""
    parser = Parser("version", "Print the release.", "  outboard version\n")
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    if options.json:
        print_json({"release": __version__})
    else:
        print(f"outboard {__version__}")
    return 0
