"""`outboard limits`: what users, groups and hosts may have at most.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from outboard.cli.calls import call, shown
from outboard.cli.parser import Parser, print_json, print_table
from outboard.errors import UsageError
from outboard.units import parse_duration_s, parse_memory_bytes

_EXAMPLES = """\
  outboard limits
  outboard limits set user ada gpus 4
  outboard limits set group students bytes 24G
  outboard limits set user '*' session_s 12h
  outboard limits delete user ada gpus
"""
_SUBJECTS = ("user", "group", "host")
_KINDS = ("gpus", "bytes", "sessions", "session_s", "idle_s", "priority", "pools")


def limits_command(words: list[str]) -> int:
    """List, set or delete limits."""
    parser = Parser("limits", "List, set and delete limits; * is everybody's default.", _EXAMPLES)
    parser.add_argument("action", nargs="?", choices=("list", "set", "delete"), default="list")
    parser.add_argument("of", nargs="*", metavar="user|group|host NAME LIMIT [VALUE …]")
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    if options.action == "list":
        answer = call("GET", "/v1/limits")
        if options.json:
            print_json(answer)
            return 0
        fields = ("subject_kind", "subject", "kind", "value", "used", "names", "set")
        print_table(
            ["OF", "NAME", "LIMIT", "VALUE", "USED", "POOLS", "SET"],
            [[shown(limit[field]) for field in fields] for limit in answer["limits"]],
        )
        return 0
    if len(options.of) < 3 or options.of[0] not in _SUBJECTS or options.of[2] not in _KINDS:
        raise UsageError(
            "which limit?",
            f"outboard limits {options.action} {'|'.join(_SUBJECTS)} NAME {'|'.join(_KINDS)} VALUE",
        )
    kind, name, limit = options.of[:3]
    path = f"/v1/limits/{kind}/{name}/{limit}"
    if options.action == "delete":
        answer = call("DELETE", path)
    else:
        answer = call("PUT", path, _value(limit, options.of[3:]))
    if options.json:
        print_json(answer)
    else:
        print(f"{kind} {name}: {limit} {shown(answer['value'])}")
    return 0


def _value(limit: str, words: list[str]) -> dict[str, object]:
    if limit == "pools":
        return {"names": words}
    if len(words) != 1:
        raise UsageError(f"{limit}: one value is needed", "outboard limits set user ada gpus 4")
    if limit == "bytes":
        return {"value": parse_memory_bytes(words[0])}
    if limit.endswith("_s"):
        return {"value": int(parse_duration_s(words[0]))}
    if not words[0].lstrip("-").isdecimal():
        raise UsageError(f"{limit} {words[0]}: not a number", "give a number")
    return {"value": int(words[0])}
