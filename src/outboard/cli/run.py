"""`outboard run`: its command line.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import re
from argparse import SUPPRESS, Namespace

from outboard.cli.parser import Parser
from outboard.errors import UsageError
from outboard.run.launcher import RunOptions, run
from outboard.units import parse_duration_s, parse_fraction, parse_memory_bytes

_TAKES_VALUE = (
    *("-n", "-p", "-m", "--wait", "--gpus", "--fraction", "--memory"),
    *("--filter", "--server", "--pool", "--name", "--time", "--priority", "-l", "--server_list"),
)

_EXAMPLES = """\
  outboard run -n 1 -- python train.py
  outboard run -n 1 -p 0.25 ./matrixMul -wA=320
  outboard run -n 1 -m 4000 "python infer.py > log"
  outboard run -n 2 -- bash
  outboard run -n 2 -p 0.5 --dry-run
"""


def run_command(words: list[str]) -> int:
    """Parse `outboard run`'s words and run the program."""
    options = parse_run(words)
    if options.dry_run:
        from outboard.cli.dry_run import rehearse

        return rehearse(options, joins=True)
    return run(options)


def parse_run(words: list[str]) -> RunOptions:
    """The options in the words after `outboard run`; raises `UsageError`.

    The first word that is no option begins the command, and all behind it belongs to it.
    """
    start = _command_start(words)
    options = _parser().parse_args(words[:start])
    command = words[start:]
    if command[:1] == ["--"]:
        command = command[1:]
    if not command and not options.dry_run:
        raise UsageError("which program?", "outboard run -n 1 -- COMMAND")
    if options.json and not options.dry_run:
        raise UsageError("--json is for --dry-run", "what a program prints is its own")
    return RunOptions(
        command,
        gpus=None if options.gpus is None else gpus_of(options.gpus),
        share=share_of(options),
        wait_s=wait_s_of(options.wait, options.no_wait),
        quiet=options.quiet,
        wishes=wishes_of(options),
        dry_run=options.dry_run,
        as_json=options.json,
    )


def share_of(options: Namespace) -> dict[str, object] | None:
    """What of each GPU is asked for, as the API takes it; None where nothing is said."""
    share: dict[str, object] | None = None
    if options.fraction is not None and options.memory is not None:
        raise UsageError("-p and -m exclude each other", "give one of them: -p 0.25, or -m 4000")
    if options.fraction is not None:
        share = {"millionths": parse_fraction(options.fraction)}
    if options.memory is not None:
        share = {"bytes": parse_memory_bytes(options.memory)}
    return share


def wishes_of(options: Namespace) -> dict[str, object]:
    """The further fields of a request, as the API takes them; only what is said."""
    wishes: dict[str, object] = {}
    filters = [parse_filter(text) for text in options.filter or ()]
    if options.server_list is not None:
        filters.append(_on_one_of(options.server_list))
    if filters:
        wishes["filters"] = filters
    if options.time is not None:
        wishes["wanted_s"] = parse_duration_s(options.time)
    if options.priority is not None:
        if not options.priority.lstrip("-").isdecimal():
            raise UsageError(f"--priority {options.priority}: not a number", "give one: 10")
        wishes["priority"] = int(options.priority)
    for name in ("server", "pool", "name"):
        if getattr(options, name) is not None:
            wishes[name] = getattr(options, name)
    for name in ("same_node", "spread"):
        if getattr(options, name):
            wishes[name] = True
    return wishes


def parse_filter(text: str) -> dict[str, object]:
    """`KEY OPERATOR VALUE`, without blanks, as the API takes it."""
    match = re.fullmatch(r"([A-Za-z0-9_.-]+)(!=|>=|<=|=)(.+)", text)
    if match is None:
        raise UsageError(
            f"--filter {text}: not a condition",
            "for example --filter device.memory>=16G, or --filter server.hostname!=gpu3",
        )
    key = "device.memory" if match[1] == "device.phy-memory" else match[1]
    return {"key": key, "operator": match[2], "value": match[3]}


def _on_one_of(servers: str) -> dict[str, object]:
    """The predecessor's `-l ADDRESS:PORT`; here the pool chooses, and may be told of one server."""
    named = [place for place in re.split("[,;]", servers) if place]
    if len(named) != 1:
        raise UsageError(
            f"-l {servers}: one server may be named, or none",
            "leave it out, and the pool chooses; or name one: --server NAME (outboard nodes)",
        )
    host, _, port = named[0].rpartition(":")
    address = host if host and port.isdecimal() else named[0]
    return {"key": "server.addr", "operator": "=", "value": address}


def add_request_options(parser: Parser, json_help: str = "for programs to read") -> None:
    """The options by which GPUs are asked for."""
    parser.add_argument("-n", "--gpus", metavar="N", help="how many GPUs (1)")
    parser.add_argument(
        "-p", "--fraction", metavar="F", help="fraction of each GPU's memory: 0.25 (all of it)"
    )
    parser.add_argument(
        "-m", "--memory", metavar="MIB", help="memory of each GPU in MiB, or with a unit: 4G"
    )
    parser.add_argument(
        "--filter", metavar="CONDITION", action="append", help="device.memory>=16G; repeatable"
    )
    parser.add_argument("--server", metavar="NAME", help="on this GPU server")
    parser.add_argument("--pool", metavar="NAME", help="on servers of this pool (default)")
    parser.add_argument("-l", "--server_list", dest="server_list", help=SUPPRESS)
    parser.add_argument("--same-node", action="store_true", help="all on one GPU server")
    parser.add_argument("--spread", action="store_true", help="on as many GPU servers as there are")
    parser.add_argument("--name", metavar="TEXT", help="what the pool's lists call it")
    parser.add_argument("--time", metavar="TIME", help="how long it will take, if that is known")
    parser.add_argument("--priority", metavar="N", help="higher ones come first (0)")
    parser.add_argument(
        "--wait", metavar="TIME", help="wait for a busy pool no longer than this: 90s, 5m, 1h"
    )
    parser.add_argument("--no-wait", action="store_true", help="fail at once if the pool is busy")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing unless it fails")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only say where it would be placed, or what is in the way (then 124)",
    )
    parser.add_argument("--json", action="store_true", help=json_help)


def _parser() -> Parser:
    parser = Parser(
        "run",
        "Run a program on GPUs of the pool and give them back when it ends. Inside a session the\n"
        "program joins it, unless -n, -p or -m asks for GPUs of its own.",
        _EXAMPLES,
    )
    parser.usage = "outboard run [OPTIONS] [--] COMMAND [ARGUMENTS]"
    add_request_options(parser, "--dry-run: for programs to read")
    return parser


def _command_start(words: list[str]) -> int:
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--" or word == "-" or not word.startswith("-"):
            break
        at += 2 if word in _TAKES_VALUE else 1
    return min(at, len(words))


def gpus_of(text: str) -> int:
    hint = "give a number of GPUs, for example -n 1; see how many there are: outboard gpus"
    if not text.isdecimal() or len(text) > 9:
        raise UsageError(f"-n {text}: not a number of GPUs", hint)
    if int(text) < 1:
        raise UsageError(f"-n {text}: at least one GPU", hint)
    return int(text)


def wait_s_of(wait: str | None, no_wait: bool) -> float | None:
    if wait is not None and no_wait:
        raise UsageError("--wait and --no-wait exclude each other", "give one of them")
    if no_wait:
        return 0.0
    return None if wait is None else parse_duration_s(wait)
