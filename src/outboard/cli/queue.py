"""`outboard queue` and `explain`: who waits, and why.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import re
from typing import Any

from outboard.cli.calls import call, path_of, shown, shown_time
from outboard.cli.parser import Parser, print_json, print_table
from outboard.errors import UsageError
from outboard.units import format_fraction, format_mib


def queue_command(words: list[str]) -> int:
    """List the waiting requests, next first."""
    parser = Parser("queue", "List who waits for GPUs, next first.", "  outboard queue\n")
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    answer = call("GET", "/v1/queue")
    if options.json:
        print_json(answer)
        return 0
    if not answer["waiting"]:
        print("nobody waits")
        return 0
    print_table(
        ["POSITION", "REQUEST", "USER", "GPUS", "OF EACH", "PRIORITY", "SINCE", "STARTS", "REASON"],
        [_row(one) for one in answer["waiting"]],
    )
    return 0


def _row(one: dict[str, Any]) -> list[str]:
    starts = one["starts"]
    return [
        *(shown(one[field]) for field in ("position", "request", "user", "gpus")),
        _share(one),
        shown(one["priority"]),
        shown_time(one["since"]),
        shown_time(starts) if starts else "N/A",
        shown(one["reason"]),
    ]


def _share(one: dict[str, Any]) -> str:
    if one["share_bytes"] is not None:
        return format_mib(one["share_bytes"])
    return "all" if one["share_millionths"] is None else format_fraction(one["share_millionths"])


def explain_command(words: list[str]) -> int:
    """Say why a request waits."""
    parser = Parser(
        "explain",
        "Say why a request waits, device by device, or what became of it.",
        "  outboard explain 5f0c2a91d3b84e06a7c1f2e3d4b5a697\n",
    )
    parser.add_argument("request", help="its id, as `outboard queue` shows it")
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    if not re.fullmatch("[0-9a-f]{32}", options.request):
        raise UsageError(
            f"{options.request}: not a request's id, which has 32 hexadecimal digits",
            "see who waits: outboard queue",
        )
    answer = call("GET", path_of("requests", options.request, "explain"))
    if options.json:
        print_json(answer)
        return 0
    print(": ".join(filter(None, (answer["request"], answer["state"], answer["reason"]))))
    for line in answer["lines"]:
        print(f"  {line}")
    return 0
