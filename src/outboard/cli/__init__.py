"""The command `outboard`.

SPDX-License-Identifier: Apache-2.0

A subcommand's module is imported when it is named: `outboard run` has 60 ms to start its program.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_HELP = """\
Examples:
  outboard run -n 1 -- python train.py        run a program on one GPU of the pool
  outboard run -p 0.25 -- ./matrixMul         ... on a quarter of a GPU's memory
  outboard run -m 4000 "python infer.py"      ... on 4000 MiB of a GPU
  outboard run -n 2 -- bash                   a shell whose programs share two GPUs
  outboard gpus                               what there is, and what is free

usage: outboard COMMAND [OPTIONS]

Commands:
  run        run a program on GPUs of the pool
  request    ask for GPUs and keep them; release: give them back
  exec       run a program in a session that is kept; shell, env: likewise
  gpus       list the pool's GPUs
  smi        every GPU with who uses it, how much, and for what
  sessions   list who uses them, end a session
  queue      list who waits, and for what; explain: why
  usage      what was held, by user, day and more
  pool       this machine's own pool: status, stop; up: start and keep it
  login      use a pool elsewhere from this account
  join       make this machine a GPU server or a client of a pool
  agent      serve this machine's GPUs to the pool that it joined
  controller make a pool's controller, and serve it
  nodes      list the GPU servers; drain, cordon, resume one
  users      who may use the pool; limits: how much; tokens: signing in
  hosts      the client machines of the pool, and what they may do
  doctor     what is wrong with this machine, and what to type
  netperf    round trip and bandwidth to a GPU server
  status     why there are GPUs here or why not, and what to do
  service    GPUs for a whole machine or a user: install, run, wait
  version    print the release

`outboard COMMAND --help` explains a command and its options.

Without configuration, a pool of this machine is started for you: of its own GPUs if it has some,
else of a software GPU, for trying out. A pool elsewhere is used after `outboard login URL`, or
named in ~/.config/outboard/config.toml, /etc/outboard/config.toml or OUTBOARD_POOL.

Exit codes: the program's own, 128+n if it was ended by signal n; Outboard's own failures are
124 (waited too long), 125 (failed), 126 (program cannot run), 127 (program not found).
"""

# Each is `NAME_command` of the module `outboard.cli.NAME`, or of the one that is named here.
_COMMANDS = {
    **{name: name for name in ("run", "gpus", "sessions", "pool", "login", "join", "agent")},
    **{name: name for name in ("controller", "service", "status", "version")},
    **{name: name for name in ("nodes", "queue", "tokens", "users", "hosts", "limits", "usage")},
    **{name: name for name in ("doctor", "netperf", "smi")},
    "drain": "nodes",
    "cordon": "nodes",
    "resume": "nodes",
    "explain": "queue",
    "up": "pool",
    **dict.fromkeys(("request", "exec", "shell", "env", "release"), "session"),
}
# Not in the help: scripts of before have them.
_ALIASES = ("request_gpus", "client", "release_gpus", "list_gpus", "health")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has left. Python must not try to flush what is left at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except Exception as error:
        from outboard.errors import OutboardError

        if not isinstance(error, OutboardError):
            raise
        _report(f"outboard: {error.message}", error.hint)
        return error.exit_code


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(_HELP)
        return 0
    name, rest = words[0], words[1:]
    if name in ("--version", "-V"):
        name = "version"
    if name == "localhealth":
        name = "health"
    module = "predecessor" if name in _ALIASES else _COMMANDS.get(name)
    if module is None:
        return _unknown(name)
    from importlib import import_module

    command: Callable[[list[str]], int]
    command = getattr(import_module(f"outboard.cli.{module}"), f"{name}_command")
    return command(rest)


def _unknown(name: str) -> int:
    import difflib

    from outboard.errors import UsageError

    close = difflib.get_close_matches(name, _COMMANDS, 1)
    what = "option" if name.startswith("-") else "command"
    hint = f"did you mean `outboard {close[0]}`?" if close else "see what there is: outboard --help"
    raise UsageError(f"there is no {what} {name}", hint)


def _report(*lines: str) -> None:
    for line in filter(None, lines):
        prefix = "" if line.startswith("outboard:") else "outboard: "
        try:
            sys.stderr.write(f"{prefix}{line}\n")
        except (OSError, ValueError):
            pass  # stderr is closed: the exit code still tells
