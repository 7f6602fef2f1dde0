"""`outboard controller`: make a pool's controller, and serve it.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os

from outboard.cli.parser import Parser
from outboard.cli.server import become
from outboard.errors import UsageError
from outboard.settings import load_settings

_ACTIONS = ("init", "serve", "backup", "restore")
CONTROLLER_STATE = "/var/lib/outboard/controller"

_EXAMPLES = """\
  sudo outboard controller init --name gpus.example.org
  outboard controller
  outboard controller backup FILE             while it works
  outboard controller restore FILE            while it does not
"""


def controller_command(words: list[str]) -> int:
    """Become the controller's process, or the one that makes its files."""
    parser = Parser("controller", "Make a pool's controller, serve it, back it up.", _EXAMPLES)
    parser.add_argument("action", nargs="?", choices=_ACTIONS, default="serve")
    parser.add_argument("file", nargs="?", help="backup, restore: the ledger's copy")
    parser.add_argument("--state", metavar="FOLDER", help=f"its files ({CONTROLLER_STATE})")
    parser.add_argument(
        "--name", action="append", default=[], help="init: a name or address it is reached by"
    )
    parser.add_argument("--listen", metavar="HOST:PORT", help="init: the API's port (0.0.0.0:7860)")
    parser.add_argument(
        "--database", metavar="URL", help="init: postgresql://… for several controllers (SQLite)"
    )
    parser.add_argument("--admin", metavar="USER", help="init: the first administrator (admin)")
    options = parser.parse_args(words)
    state = options.state or load_settings().text("controller.state", CONTROLLER_STATE)
    arguments = [options.action]
    if (options.file is None) == (options.action in ("backup", "restore")):
        raise UsageError(
            f"outboard controller {options.action} takes {'no' if options.file else 'a'} file",
            "outboard controller --help",
        )
    arguments += [os.path.abspath(options.file)] if options.file else []
    arguments += ["--state", state]
    for name in options.name:
        arguments += ["--name", name]
    for option in ("listen", "database", "admin"):
        value = getattr(options, option)
        if value:
            arguments += [f"--{option}", value]
    become("outboard.controller", arguments)
