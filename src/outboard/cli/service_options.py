"""The options of `outboard service` that say which service is meant and what it holds.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
from argparse import Namespace

from outboard.cli.parser import Parser
from outboard.errors import UsageError
from outboard.service.folders import DEFAULT_NAME, ServiceFolders
from outboard.service.options import ServiceOptions
from outboard.units import parse_duration_s, parse_fraction, parse_memory_bytes

READY_TIMEOUT, WAKE_TIMEOUT, LONGEST_PAUSE = "10s", "30s", "60s"


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
        "--ready-timeout", metavar="TIME", default=READY_TIMEOUT, help="say ready after this (10s)"
    )
    parser.add_argument(
        "--wake-timeout", metavar="TIME", default=WAKE_TIMEOUT, help="a program waits so long (30s)"
    )
    parser.add_argument(
        "--longest-pause", metavar="TIME", default=LONGEST_PAUSE, help="between two tries (60s)"
    )


def folders_of(options: Namespace) -> ServiceFolders:
    """The place that the options name; without one, root's is the machine's, a user's his own."""
    system = options.system or (os.geteuid() == 0 and not options.user)
    return ServiceFolders(options.name, system=system)


def request_of(options: Namespace) -> list[str]:
    """The options as the unit shows them: the number of GPUs always, others where given."""
    words = ["-n", options.gpus]
    for flag, value, default in (
        ("-p", options.fraction, None),
        ("-m", options.memory, None),
        ("--for-user", options.for_user, ""),
        ("--group", options.group, ""),
        ("--idle", options.idle, None),
        ("--ready-timeout", options.ready_timeout, READY_TIMEOUT),
        ("--wake-timeout", options.wake_timeout, WAKE_TIMEOUT),
        ("--longest-pause", options.longest_pause, LONGEST_PAUSE),
    ):
        if value != default:
            words += [flag, value]
    return words


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
