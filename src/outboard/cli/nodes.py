"""`outboard nodes`, `drain`, `cordon`, `resume`: the pool's GPU servers.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from typing import Any

from outboard.cli.calls import call, path_of, shown
from outboard.cli.parser import Parser, print_json, print_table
from outboard.errors import UsageError
from outboard.units import format_duration, format_mib, parse_duration_s

_EXAMPLES = """\
  outboard nodes
  outboard nodes cordon gpu3                  and drain, resume: as the commands of that name
  outboard nodes set gpu3 --pool research --label rack=a7
  outboard nodes remove gpu3
"""
_SILENT = "its agent has not reported yet: outboard agent, there"


def nodes_command(words: list[str]) -> int:
    """List the servers, describe one, or take it out of the pool."""
    if words[:1] and words[0] in _CHANGES:
        return _CHANGES[words[0]](words[1:])
    parser = Parser("nodes", "List the pool's GPU servers, describe or remove one.", _EXAMPLES)
    parser.add_argument("action", nargs="?", choices=("list", "set", "remove"), default="list")
    parser.add_argument("node", nargs="?", help="set, remove: which")
    parser.add_argument("--pool", help="set: which pool its GPUs are asked for in (default)")
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set: for --filter label.NAME=VALUE; without a value it is taken away",
    )
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    if options.action != "list" and not options.node:
        raise UsageError("which server?", f"outboard nodes {options.action} NAME")
    if options.action == "set":
        return _set(options.node, options.pool, options.label, as_json=options.json)
    if options.action == "remove":
        return _done(call("DELETE", path_of("nodes", options.node)), as_json=options.json)
    answer = call("GET", "/v1/nodes")
    if options.json:
        print_json(answer)
        return 0
    header = ["SERVER", "STATE", "HEALTH", "GPUS", "FREE", "SEEN", "RELEASE", "ADDRESS"]
    header += ["POOL", "REASON"]
    rows = [
        [
            node["name"],
            node["state"],
            _health(node),
            str(node["devices"]),
            format_mib(node["capacity_bytes"] - node["granted_bytes"]),
            f"{format_duration(node['silent_s'])} ago",
            shown(node["release"] or None),
            shown(node["address"] or None),
            node["pool"],
            node["health_reason"] or node["reason"] or ("-" if node["address"] else _SILENT),
        ]
        for node in answer["nodes"]
    ]
    if rows:
        print_table(header, rows)
    else:
        print("no GPU servers yet; add one: outboard tokens create --join node")
    return 0


def _set(node: str, pool: str | None, labels: list[str], *, as_json: bool) -> int:
    if pool is None and not labels:
        raise UsageError("what of it?", f"outboard nodes set {node} --pool NAME --label NAME=VALUE")
    pairs = dict(label.partition("=")[::2] for label in labels)
    body: dict[str, object] = {"labels": pairs, **({} if pool is None else {"pool": pool})}
    answer = call("PUT", path_of("nodes", node), body)
    if as_json:
        print_json(answer)
    else:
        shown_labels = ", ".join(f"{name}={value}" for name, value in answer["labels"].items())
        print(f"{node}: in pool {answer['pool']}, labels: {shown_labels or 'none'}")
    return 0


def _health(node: dict[str, Any]) -> str:
    """What its agent said; a server that has only joined has no agent that said anything."""
    if not node["address"]:
        return "N/A"
    return "ok" if node["healthy"] else "bad"


def drain_command(words: list[str]) -> int:
    """No new sessions; what runs may be given a deadline."""
    parser = Parser(
        "drain",
        "Grant nothing new on a GPU server; end what is left at the deadline.",
        "  outboard drain gpu3 --deadline 1h --reason 'new driver'\n",
    )
    parser.add_argument("node")
    parser.add_argument("--deadline", metavar="TIME", help="end what is left after this time")
    return _change(parser, words, "drain")


def cordon_command(words: list[str]) -> int:
    """No new sessions; what runs goes on."""
    parser = Parser(
        "cordon", "Grant nothing new on a GPU server.", "  outboard cordon gpu3 --reason testing\n"
    )
    parser.add_argument("node")
    return _change(parser, words, "cordon")


def resume_command(words: list[str]) -> int:
    """Sessions again."""
    parser = Parser("resume", "Grant on a GPU server again.", "  outboard resume gpu3\n")
    parser.add_argument("node")
    return _change(parser, words, "resume")


def _change(parser: Parser, words: list[str], action: str) -> int:
    parser.add_argument("--reason", default="", help="what users are told")
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    body: dict[str, object] | None = None if action == "resume" else {"reason": options.reason}
    if action == "drain" and options.deadline is not None and body is not None:
        body["deadline_s"] = parse_duration_s(options.deadline)
    return _done(call("POST", path_of("nodes", options.node, action), body), as_json=options.json)


def _done(answer: dict[str, object], *, as_json: bool) -> int:
    if as_json:
        print_json(answer)
    else:
        print(f"{answer['node']}: {answer['state']}")
    return 0


_CHANGES = {"drain": drain_command, "cordon": cordon_command, "resume": resume_command}
