"""`outboard hosts`: the client machines of the pool, and what may be asked for from them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from outboard.cli.calls import call, shown
from outboard.cli.parser import Parser, print_json, print_table
from outboard.errors import UsageError

_POLICIES = ("any", "service-only", "blocked")

_EXAMPLES = """\
  outboard hosts
  outboard hosts set lab7 --policy service-only   its GPUs come by its service alone
"""


def hosts_command(words: list[str]) -> int:
    """List the client machines, or say what may be asked for from one."""
    parser = Parser("hosts", "List the pool's client machines, set what they may do.", _EXAMPLES)
    parser.add_argument("action", nargs="?", choices=("list", "set"), default="list")
    parser.add_argument("host", nargs="?", help="set: its name, or its id where names repeat")
    parser.add_argument("--policy", choices=_POLICIES, help="set: who on it may ask for GPUs")
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    hosts = call("GET", "/v1/hosts")
    if options.action == "set":
        if not options.host or not options.policy:
            raise UsageError("which host, and what?", "outboard hosts set NAME --policy POLICY")
        identity = _identity(hosts["hosts"], options.host)
        answer = call("PUT", f"/v1/hosts/{identity}", {"policy": options.policy})
        if options.json:
            print_json(answer)
        else:
            print(f"{options.host}: {options.policy}")
        return 0
    if options.json:
        print_json(hosts)
        return 0
    if not hosts["hosts"]:
        print("no client machine has joined; for one: outboard tokens create --join host")
        return 0
    fields = ("name", "id", "policy", "enrolled")
    print_table(
        [field.upper() for field in fields],
        [[shown(host[field]) for field in fields] for host in hosts["hosts"]],
    )
    return 0


def _identity(hosts: list[dict[str, object]], named: str) -> str:
    found = [str(host["id"]) for host in hosts if named in (host["name"], host["id"])]
    if len(found) != 1:
        raise UsageError(
            f"{len(found) or 'no'} client machines are called {named}",
            "name one by its id; see: outboard hosts",
        )
    return found[0]
