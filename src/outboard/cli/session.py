"""`outboard request`, `exec`, `shell`, `env`, `release`: one session, used as often as wanted.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import shlex
import sys

from outboard.cli.parser import Parser, print_json
from outboard.cli.run import add_request_options, gpus_of, parse_run, share_of, wait_s_of, wishes_of
from outboard.directories import runtime_directory, sessions_directory
from outboard.errors import NotFound, UsageError
from outboard.model.session_file import read_session_file
from outboard.native import find_native_files
from outboard.run.environment import session_environment
from outboard.run.holder import held_sessions, release_held, start_holder
from outboard.run.lease import Wish
from outboard.run.waiting import WaitLine

_NEXT = "ask for one: outboard request -n 1"
_SHOWN = ("LD_LIBRARY_PATH", "OUTBOARD_SESSION", "TRITON_LIBCUDA_PATH")


def request_command(words: list[str]) -> int:
    """Ask for GPUs and keep them until `outboard release`."""
    parser = Parser(
        "request",
        "Ask for GPUs and keep them, for as many programs as wanted, until they are released.",
        "  outboard request -n 1 -p 0.5\n  outboard exec -- python train.py\n  outboard release\n",
    )
    add_request_options(parser)
    options = parser.parse_args(words)
    if options.dry_run:
        from outboard.cli.dry_run import rehearse

        return rehearse(parse_run(words), joins=False)
    find_native_files().require_shim()
    wish = Wish(
        1 if options.gpus is None else gpus_of(options.gpus),
        share_of(options) or {},
        wait_s_of(options.wait, options.no_wait),
        wishes_of(options),
        "outboard request",
    )
    line = WaitLine(quiet=options.quiet)
    try:
        started = start_holder(wish, line.tell)
    finally:
        line.end()
    if options.json:
        print_json({"session": started.session, "file": started.path})
    else:
        print(started.session)
    return 0


def exec_command(words: list[str]) -> int:
    """Run a program in a session that is held."""
    parser = Parser(
        "exec",
        "Run a program in a session that `outboard request` made: the newest, or a named one.",
        "  outboard exec -- python train.py\n  outboard exec s-5f0c2a91d3b8 -- nvidia-smi\n",
    )
    parser.usage = "outboard exec [SESSION] -- COMMAND [ARGUMENTS]"
    parser.add_argument("session", nargs="?")
    if "--" not in words:
        if words[:1] in (["-h"], ["--help"]):
            parser.parse_args(words)
        raise UsageError("which program?", "outboard exec [SESSION] -- COMMAND")
    at = words.index("--")
    options = parser.parse_args(words[:at])
    if not words[at + 1 :]:
        raise UsageError("which program?", "outboard exec [SESSION] -- COMMAND")
    return _run_in(options.session, words[at + 1 :])


def shell_command(words: list[str]) -> int:
    """A shell whose programs use a session that is held."""
    parser = Parser("shell", "A shell in a session that is held.", "  outboard shell\n")
    parser.add_argument("session", nargs="?")
    options = parser.parse_args(words)
    return _run_in(options.session, [os.environ.get("SHELL") or "/bin/sh"])


def env_command(words: list[str]) -> int:
    """Print what makes a shell's programs use a session."""
    parser = Parser(
        "env", "Print a session's variables, for a shell to take.", '  eval "$(outboard env)"\n'
    )
    parser.add_argument("session", nargs="?")
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    path = _path_of(options.session)
    native = find_native_files()
    native.require_shim()
    content = read_session_file(path)
    software = any(device.name.startswith("Software") for device in content.devices)
    made = session_environment(os.environ, path, native.shim_folder, software=software)
    chosen = {name: made[name] for name in _SHOWN}
    if options.json:
        print_json({"session": content.session, "variables": chosen})
    else:
        for name, value in chosen.items():
            print(f"export {name}={shlex.quote(value)}")
    return 0


def release_command(words: list[str]) -> int:
    """Give a held session back."""
    parser = Parser(
        "release",
        "Give a session back that `outboard request` made: the newest, a named one, or all.",
        "  outboard release\n  outboard release --all\n",
    )
    parser.add_argument("session", nargs="?")
    parser.add_argument("--all", action="store_true", help="every one that this user holds")
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    held = held_sessions()
    if options.all:
        chosen = list(held)
    else:
        chosen = [_named(options.session, held)]
    for session in chosen:
        release_held(session, held[session])
    if options.json:
        print_json({"released": chosen})
    else:
        print("\n".join(f"{session} is released" for session in chosen) or "nothing is held")
    return 0


def _run_in(session: str | None, command: list[str]) -> int:
    from outboard.run.launcher import RunOptions, run

    os.environ["OUTBOARD_SESSION"] = _path_of(session)
    sys.stdout.flush()
    return run(RunOptions(command, quiet=True))


def _path_of(session: str | None) -> str:
    name = _named(session, held_sessions())
    return os.path.join(sessions_directory(runtime_directory()), f"{name}.json")


def _named(session: str | None, held: dict[str, int]) -> str:
    """The session of that name, or the newest; raises `NotFound`."""
    if session is None:
        if not held:
            raise NotFound("no session is held by this user", _NEXT)
        return list(held)[-1]
    if session not in held:
        names = ", ".join(held) or "none"
        raise NotFound(f"{session} is not held by this user; held: {names}", _NEXT)
    return session
