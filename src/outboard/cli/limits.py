"""`outboard limits`: what users, groups and hosts may have at most.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from typing import Any

from outboard.cli.calls import call, path_of, shown_time
from outboard.cli.parser import Parser, print_json, print_table
from outboard.errors import UsageError
from outboard.units import format_duration, format_mib, parse_duration_s, parse_memory_bytes

_EXAMPLES = """\
  outboard limits
  outboard limits set user ada gpus 4
  outboard limits set group students bytes 24G
  outboard limits set user '*' session_s 12h
  outboard limits delete user ada gpus
"""
_SUBJECTS = ("user", "group", "host")
_COUNTED = ("gpus", "bytes", "sessions")
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
        if answer["limits"]:
            print_table(
                ["OF", "NAME", "LIMIT", "VALUE", "USED", "SET"],
                [_row(limit) for limit in answer["limits"]],
            )
        else:
            print("no limits are set; set one: outboard limits set user '*' gpus 4")
        return 0
    kind, name, limit = _named(options.action, options.of)
    path = path_of("limits", kind, name, limit)
    if options.action == "delete":
        answer = call("DELETE", path)
    else:
        answer = call("PUT", path, _value(limit, options.of[3:]))
    if options.json:
        print_json(answer)
    else:
        print(f"{kind} {name}: {limit} {_amount(limit, answer['value'], options.of[3:])}")
    return 0


def _named(action: str, words: list[str]) -> tuple[str, str, str]:
    """Whose limit, and which; raises `UsageError` naming the word that is wrong."""
    whose, which = "|".join(_SUBJECTS), "|".join(_KINDS)
    hint = f"outboard limits {action} {whose} NAME {which}{' VALUE' * (action == 'set')}"
    if len(words) < 3:
        raise UsageError("which limit?", hint)
    for word, known in ((words[0], _SUBJECTS), (words[2], _KINDS)):
        if word not in known:
            raise UsageError(f"{word}: none of {', '.join(known)}", hint)
    return words[0], words[1], words[2]


def _row(limit: dict[str, Any]) -> list[str]:
    kind, used = str(limit["kind"]), limit["used"]
    # A default is counted for nobody; a counter is made when something is used.
    counted = kind in _COUNTED and limit["subject"] != "*"
    return [
        str(limit["subject_kind"]),
        str(limit["subject"]),
        kind,
        _amount(kind, limit["value"], limit["names"]),
        _amount(kind, used or 0, []) if counted else "-",
        shown_time(limit["set"]),
    ]


def _amount(kind: str, value: int | None, names: list[str]) -> str:
    if kind == "pools" and names:
        return ",".join(names)
    if value is None:
        return "without a limit of its own"
    if kind == "bytes":
        return format_mib(value)
    return format_duration(value) if kind.endswith("_s") else str(value)


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
