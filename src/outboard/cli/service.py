"""`outboard service`: the client service of this machine or this user.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace

from outboard.cli.parser import Parser, print_json
from outboard.errors import (
    OutboardError,
    ServiceNotRunning,
    UsageError,
    WaitedTooLong,
)
from outboard.service.client import ask
from outboard.service.folders import DEFAULT_NAME, ServiceFolders, find_service
from outboard.service.options import ServiceOptions
from outboard.units import parse_duration_s, parse_fraction, parse_memory_bytes

_EXAMPLES = """\
  sudo outboard service install -n 1 -p 0.5     every user of this machine has half a GPU
  sudo outboard service install --for-user ada  one user has one
  outboard service install --user               the same without root
  outboard service run -n 1                     in the foreground, without systemd
"""

_WAIT_POLL_S = 0.1


def service_command(words: list[str]) -> int:
    """One of the service's subcommands."""
    parser = Parser("service", "Hold GPUs for this machine or this user.", _EXAMPLES)
    parser.add_argument("action", choices=sorted(_ACTIONS), help="what to do")
    if not words or words[0] not in _ACTIONS:
        parser.parse_args(words[:1])
        raise UsageError("which action?", "see what there is: outboard service --help")
    return _ACTIONS[words[0]](words[1:])


def _run(words: list[str]) -> int:
    parser = Parser(
        "service run",
        "Hold GPUs until a signal, and give this machine's programs tickets for them.",
        "  outboard service run -n 1 -p 0.25\n",
    )
    add_place(parser)
    add_request(parser)
    options = parser.parse_args(words)
    from outboard.service.daemon import run_service

    return run_service(folders_of(options), options_of(options))


def _publish(words: list[str]) -> int:
    parser = Parser("service publish", "Write the session file (done by the unit).", "")
    add_place(parser)
    add_request(parser)
    options = parser.parse_args(words)
    from outboard.service.publish import publish_session

    publish_session(folders_of(options), options_of(options))
    return 0


def _unpublish(words: list[str]) -> int:
    parser = Parser("service unpublish", "Take the session file away (done by the unit).", "")
    add_place(parser)
    folders = folders_of(parser.parse_args(words))
    from outboard.service.publish import unpublish

    unpublish(folders)
    return 0


def _ended(words: list[str]) -> int:
    parser = Parser("service ended", "Release what a stopped service held (done by the unit).", "")
    add_place(parser)
    folders = folders_of(parser.parse_args(words))
    from outboard.service.stop import unit_is_stopping

    if not unit_is_stopping(folders):
        return 0
    from outboard.service.holder import release_left_over

    error = release_left_over(folders.lease_file)
    if error is not None:
        sys.stderr.write(f"not released, the lease will run out: {error.message}\n")
    return 0


def _wait(words: list[str]) -> int:
    parser = Parser(
        "service wait",
        "Wait until the service has its GPUs.",
        "  outboard service wait default --timeout 2m && python train.py\n",
    )
    parser.add_argument("name", nargs="?", default=DEFAULT_NAME, help="the service (default)")
    parser.add_argument("--timeout", metavar="TIME", help="no longer than this: 30s, 5m")
    options = parser.parse_args(words)
    folders = find_service(options.name)
    timeout_s = None if options.timeout is None else parse_duration_s(options.timeout)
    started_s = time.monotonic()
    reason = ""
    while timeout_s is None or time.monotonic() - started_s < timeout_s:
        try:
            status = status_of(ask(folders, "status"))
        except ServiceNotRunning as error:
            reason = error.message
        else:
            if status["state"] in ("active", "standby"):
                return 0
            reason = str(status["line"])
        time.sleep(_WAIT_POLL_S)
    raise WaitedTooLong(
        f"the GPU service {options.name} has no GPU after {options.timeout}: {reason}",
        "see: outboard status",
    )


def _reload(words: list[str]) -> int:
    parser = Parser(
        "service reload",
        "Take the options that the unit has now; what changes the GPUs waits until none is used.",
        "  sudo systemctl reload outboard@default\n",
    )
    parser.add_argument("--json", action="store_true", help="for programs to read")
    add_place(parser)
    add_request(parser)
    options = parser.parse_args(words)
    from dataclasses import asdict

    answer = ask(folders_of(options), "reload", options=asdict(options_of(options)))
    if options.json:
        print_json(answer)
    else:
        print(status_of(answer)["line"])
    return 0


def add_place(parser: Parser) -> None:
    """The options that say which service is meant."""
    parser.add_argument(
        "--name", default=DEFAULT_NAME, metavar="NAME", help=f"the service ({DEFAULT_NAME})"
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--system", action="store_true", help="the machine's (as root)")
    place.add_argument("--user", action="store_true", help="this user's own (without root)")


def add_request(parser: Parser) -> None:
    """The options that say what it holds and for whom."""
    parser.add_argument("-n", "--gpus", metavar="N", default="1", help="how many GPUs (1)")
    parser.add_argument(
        "-p", "--fraction", metavar="F", help="fraction of each GPU's memory: 0.25 (all of it)"
    )
    parser.add_argument(
        "-m", "--memory", metavar="MIB", help="memory of each GPU in MiB, or with a unit: 4G"
    )
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--for-user", default="", metavar="USER", help="for this user alone")
    whose.add_argument("--group", default="", metavar="GROUP", help="for this group alone")
    parser.add_argument(
        "--idle", metavar="TIME", help="give the GPUs back when no program used them for so long"
    )
    parser.add_argument(
        "--ready-timeout", metavar="TIME", default="10s", help="say ready after this (10s)"
    )
    parser.add_argument(
        "--wake-timeout", metavar="TIME", default="30s", help="a program waits so long (30s)"
    )
    parser.add_argument(
        "--longest-pause", metavar="TIME", default="60s", help="between two tries (60s)"
    )


def folders_of(options: Namespace) -> ServiceFolders:
    """The place that the options name: root's is the machine's, another user's his own."""
    return ServiceFolders(options.name, system=options.system or place_is_system(options))


def place_is_system(options: Namespace) -> bool:
    return not options.user and os.geteuid() == 0


def options_of(options: Namespace) -> ServiceOptions:
    """What the options ask for; raises `UsageError`."""
    share: dict[str, int] = {}
    if options.fraction is not None and options.memory is not None:
        raise UsageError("-p and -m exclude each other", "give one of them: -p 0.25, or -m 4000")
    if options.fraction is not None:
        share = {"millionths": parse_fraction(options.fraction)}
    if options.memory is not None:
        share = {"bytes": parse_memory_bytes(options.memory)}
    if not options.gpus.isdecimal() or not 0 < int(options.gpus) < 1000:
        raise UsageError(f"-n {options.gpus}: not a number of GPUs", "for example -n 1")
    return ServiceOptions(
        gpus=int(options.gpus),
        share=share,
        for_user=options.for_user,
        group=options.group,
        idle_s=None if options.idle is None else parse_duration_s(options.idle),
        ready_timeout_s=parse_duration_s(options.ready_timeout),
        wake_timeout_s=parse_duration_s(options.wake_timeout),
        longest_pause_s=parse_duration_s(options.longest_pause),
    )


def status_of(answer: dict[str, object]) -> dict[str, object]:
    """The state in a service's answer."""
    status = answer["status"]
    if not isinstance(status, dict):
        raise OutboardError("the GPU service's answer cannot be read", "restart the service")
    return status


_ACTIONS = {
    "run": _run,
    "publish": _publish,
    "unpublish": _unpublish,
    "ended": _ended,
    "wait": _wait,
    "reload": _reload,
}
