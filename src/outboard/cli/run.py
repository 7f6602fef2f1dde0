"""`outboard run`: its command line.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from outboard.cli.parser import Parser
from outboard.errors import UsageError
from outboard.run.launcher import RunOptions, run
from outboard.units import parse_duration_s, parse_fraction, parse_memory_bytes

_TAKES_VALUE = ("-n", "-p", "-m", "--wait", "--gpus", "--fraction", "--memory")

_EXAMPLES = """\
  outboard run -n 1 -- python train.py
  outboard run -n 1 -p 0.25 ./matrixMul -wA=320
  outboard run -n 1 -m 4000 "python infer.py > log"
  outboard run -n 2 -- bash
"""


def run_command(words: list[str]) -> int:
    """Parse `outboard run`'s words and run the program."""
    return run(parse_run(words))


def parse_run(words: list[str]) -> RunOptions:
    """The options in the words after `outboard run`; raises `UsageError`.

    The first word that is no option begins the command, and all behind it belongs to it.
    """
    start = _command_start(words)
    options = _parser().parse_args(words[:start])
    command = words[start:]
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        raise UsageError("which program?", "outboard run -n 1 -- COMMAND")
    share: dict[str, object] | None = None
    if options.fraction is not None and options.memory is not None:
        raise UsageError("-p and -m exclude each other", "give one of them: -p 0.25, or -m 4000")
    if options.fraction is not None:
        share = {"millionths": parse_fraction(options.fraction)}
    if options.memory is not None:
        share = {"bytes": parse_memory_bytes(options.memory)}
    return RunOptions(
        command,
        gpus=None if options.gpus is None else _gpus(options.gpus),
        share=share,
        wait_s=_wait_s(options.wait, options.no_wait),
        quiet=options.quiet,
    )


def _parser() -> Parser:
    parser = Parser(
        "run",
        "Run a program on GPUs of the pool and give them back when it ends. Inside a session the\n"
        "program joins it, unless -n, -p or -m asks for GPUs of its own.",
        _EXAMPLES,
    )
    parser.usage = "outboard run [OPTIONS] [--] COMMAND [ARGUMENTS]"
    parser.add_argument("-n", "--gpus", metavar="N", help="how many GPUs (1)")
    parser.add_argument(
        "-p", "--fraction", metavar="F", help="fraction of each GPU's memory: 0.25 (all of it)"
    )
    parser.add_argument(
        "-m", "--memory", metavar="MIB", help="memory of each GPU in MiB, or with a unit: 4G"
    )
    parser.add_argument(
        "--wait", metavar="TIME", help="wait for a busy pool no longer than this: 90s, 5m, 1h"
    )
    parser.add_argument("--no-wait", action="store_true", help="fail at once if the pool is busy")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing unless it fails")
    return parser


def _command_start(words: list[str]) -> int:
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--" or word == "-" or not word.startswith("-"):
            break
        at += 2 if word in _TAKES_VALUE else 1
    return min(at, len(words))


def _gpus(text: str) -> int:
    hint = "give a number of GPUs, for example -n 1; see how many there are: outboard gpus"
    if not text.isdecimal() or len(text) > 9:
        raise UsageError(f"-n {text}: not a number of GPUs", hint)
    if int(text) < 1:
        raise UsageError(f"-n {text}: at least one GPU", hint)
    return int(text)


def _wait_s(wait: str | None, no_wait: bool) -> float | None:
    if wait is not None and no_wait:
        raise UsageError("--wait and --no-wait exclude each other", "give one of them")
    if no_wait:
        return 0.0
    return None if wait is None else parse_duration_s(wait)
