"""`outboard users`: who may use the pool.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from outboard.cli.calls import call, path_of, shown, shown_time
from outboard.cli.parser import Parser, print_json, print_table
from outboard.errors import UsageError

_EXAMPLES = """\
  outboard users
  outboard users set ada --group vision --group staff --weight 2
  outboard users set bob --disable
"""


def users_command(words: list[str]) -> int:
    """List users, or make or change one."""
    parser = Parser("users", "List the pool's users, make or change one.", _EXAMPLES)
    parser.add_argument("action", nargs="?", choices=("list", "set"), default="list")
    parser.add_argument("name", nargs="?", help="set: whom")
    parser.add_argument("--full-name", help="set: for people to read")
    parser.add_argument("--weight", type=int, help="set: share of a busy pool, beside others'")
    parser.add_argument("--group", action="append", help="set: its groups, all of them")
    parser.add_argument("--direct", choices=("yes", "no"), help="set: may ask beside a service")
    parser.add_argument("--disable", action="store_true", help="set: may use nothing any more")
    parser.add_argument("--enable", action="store_true", help="set: may use it again")
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    if options.action == "set":
        if not options.name:
            raise UsageError("which user?", "outboard users set NAME; see: outboard users")
        body: dict[str, object] = {}
        for field in ("full_name", "weight"):
            if getattr(options, field) is not None:
                body[field] = getattr(options, field)
        if options.group is not None:
            body["groups"] = options.group
        if options.direct is not None:
            body["direct"] = options.direct == "yes"
        if options.disable or options.enable:
            body["disabled"] = bool(options.disable)
        answer = call("PUT", path_of("users", options.name), body)
        if options.json:
            print_json(answer)
        else:
            print(f"{options.name} is set")
        return 0
    answer = call("GET", "/v1/users")
    if options.json:
        print_json(answer)
        return 0
    fields = ("name", "full_name", "groups", "weight", "direct", "disabled")
    print_table(
        ["NAME", "FULL NAME", "GROUPS", "WEIGHT", "DIRECT", "DISABLED", "CREATED"],
        [
            [*(shown(user[field]) for field in fields), shown_time(user["created"])]
            for user in answer["users"]
        ],
    )
    return 0
