"""`outboard controller`: make a pool's controllers, serve them, list and remove them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os

from outboard.cli.calls import call, path_of, shown_time
from outboard.cli.parser import Parser, print_json, print_table
from outboard.cli.server import become
from outboard.errors import UsageError
from outboard.settings import load_settings

# What each takes beside its options.
_TAKES = {
    "init": "",
    "join": "URL",
    "serve": "",
    "list": "",
    "remove": "NAME",
    "backup": "FILE",
    "restore": "FILE",
}
CONTROLLER_STATE = "/var/lib/outboard/controller"

_EXAMPLES = """\
  sudo outboard controller init --name gpus.example.org
  outboard controller
  outboard controller backup FILE             while it works
  outboard controller restore FILE            while it does not

  sudo outboard controller init --name ctl1.example.org --database postgresql://…
  sudo outboard controller join https://ctl1.example.org:7860 --name ctl2.example.org < token
  outboard controller list                    all that serve this pool
"""


def controller_command(words: list[str]) -> int:
    """Become the controller's process, or the one that makes its files."""
    parser = Parser(
        "controller",
        "Make a pool's controller, serve it, back it up; let another join, which takes PostgreSQL\n"
        "and a token by stdin: outboard tokens create --join controller.",
        _EXAMPLES,
    )
    parser.add_argument("action", nargs="?", choices=tuple(_TAKES), default="serve")
    parser.add_argument(
        "what", nargs="?", help="join: the pool's URL; remove: which; backup, restore: the copy"
    )
    parser.add_argument("--state", metavar="FOLDER", help=f"its files ({CONTROLLER_STATE})")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        help="init, join: a name or address it is reached by; the first is its own",
    )
    parser.add_argument(
        "--listen", metavar="HOST:PORT", help="init, join: the API's port (0.0.0.0:7860)"
    )
    parser.add_argument(
        "--database",
        metavar="URL",
        help="init: postgresql://… for several controllers (SQLite); join: its address from here",
    )
    parser.add_argument("--admin", metavar="USER", help="init: the first administrator (admin)")
    parser.add_argument("--json", action="store_true", help="list, remove: for programs to read")
    options = parser.parse_args(words)
    takes = _TAKES[options.action]
    if bool(takes) != bool(options.what):
        raise UsageError(
            f"outboard controller {options.action} takes {takes or 'nothing more'}",
            "outboard controller --help",
        )
    if options.action in ("list", "remove"):
        return _of_pool(options.action, options.what, as_json=options.json)
    state = options.state or load_settings().text("controller.state", CONTROLLER_STATE)
    arguments = [options.action]
    if takes:
        arguments.append(os.path.abspath(options.what) if takes == "FILE" else options.what)
    arguments += ["--state", state]
    for name in options.name:
        arguments += ["--name", name]
    for option in ("listen", "database", "admin"):
        value = getattr(options, option)
        if value:
            arguments += [f"--{option}", value]
    return become("outboard.controller", arguments)


def _of_pool(action: str, name: str, *, as_json: bool) -> int:
    if action == "remove":
        answer = call("DELETE", path_of("controllers", name))
        if as_json:
            print_json(answer)
        else:
            print(f"{name}: removed; stop it there: systemctl disable --now outboard-controller")
        return 0
    answer = call("GET", "/v1/controllers")
    if as_json:
        print_json(answer)
        return 0
    print_table(
        ["NAME", "ADDRESS", "JOINED", "STARTED"],
        [
            [one["name"], one["address"], shown_time(one["joined"]), shown_time(one["started"])]
            for one in answer["controllers"]
        ],
    )
    return 0
