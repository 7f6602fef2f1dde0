"""`outboard queue` and `explain`: who waits, and why.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from outboard.cli.calls import call, shown
from outboard.cli.parser import Parser, print_json, print_table


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
    fields = ("position", "request", "user", "gpus", "priority", "since", "starts", "reason")
    print_table(
        [field.upper() for field in fields],
        [[shown(one[field]) for field in fields] for one in answer["waiting"]],
    )
    return 0


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
    answer = call("GET", f"/v1/requests/{options.request}/explain")
    if options.json:
        print_json(answer)
        return 0
    print(": ".join(filter(None, (answer["request"], answer["state"], answer["reason"]))))
    for line in answer["lines"]:
        print(f"  {line}")
    return 0
