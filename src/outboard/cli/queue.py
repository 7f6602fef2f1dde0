"""`outboard queue` and `explain`: who waits, and why; why who runs was placed so.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import re
from typing import Any

from outboard.cli.calls import call, path_of, shown, shown_time
from outboard.cli.parser import Parser, print_json, print_table
from outboard.errors import UsageError
from outboard.units import format_fraction, format_mib

_MOST_DEVICES = 40


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
    """Say why a request waits, or got what it got."""
    parser = Parser(
        "explain",
        "Say why a request waits, or was placed as it was, device by device.",
        "  outboard explain 5f0c2a91d3b84e06a7c1f2e3d4b5a697\n  outboard explain s-4be1a70f9c26\n",
    )
    parser.add_argument("id", help="a request's, as `outboard queue` shows it, or a session's")
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    if re.fullmatch("[0-9a-f]{32}", options.id):
        answer = call("GET", path_of("requests", options.id, "explain"))
    elif re.fullmatch("s-[0-9a-f]{8,32}", options.id):
        answer = call("GET", path_of("sessions", options.id, "explain"))
    else:
        raise UsageError(
            f"{options.id}: neither a request's id (32 hexadecimal digits) nor a session's (s-…)",
            "see who waits: outboard queue; who runs: outboard sessions",
        )
    if options.json:
        print_json(answer)
        return 0
    print(": ".join(filter(None, (answer["request"], answer["state"], answer["reason"]))))
    for line in answer["lines"]:
        print(f"  {line}")
    for one in answer["devices"][:_MOST_DEVICES]:
        print(f"  {one['node']} GPU {one['index']}: {one['why']}")
    if len(answer["devices"]) > _MOST_DEVICES:
        print(f"  and {len(answer['devices']) - _MOST_DEVICES} more GPUs; all of them: --json")
    return 0
