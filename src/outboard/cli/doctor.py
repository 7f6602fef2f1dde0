"""`outboard doctor`: what is wrong with this machine's part of a pool, and what to type.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import sys

from outboard.cli.controller import CONTROLLER_STATE
from outboard.cli.join import AGENT_STATE
from outboard.cli.parser import Parser, print_json
from outboard.doctor import controller, machine, network, server
from outboard.doctor.place import Place
from outboard.doctor.registry import CHECKS, Result, examine
from outboard.errors import UsageError
from outboard.settings import load_settings

_EXAMPLES = """\
  outboard doctor
  sudo outboard doctor                        on a controller or a GPU server
  outboard doctor --json | jq '.checks[] | select(.state == "fail")'
"""
# Importing them is what registers their checks, in the order in which they are run.
_MODULES = (machine, network, controller, server)
_COLOURS = {"pass": "32", "warn": "33", "fail": "31", "skip": "2"}
EXIT_FAILED = 1


def doctor_command(words: list[str]) -> int:
    """Run the checks; 1 if one failed."""
    parser = Parser(
        "doctor",
        "Look for what is wrong with this machine's part of a pool, and say what to type. Whether\n"
        "it is client, controller or GPU server, it finds out by itself.",
        _EXAMPLES,
    )
    parser.add_argument("--controller-state", metavar="FOLDER", help=f"({CONTROLLER_STATE})")
    parser.add_argument("--agent-state", metavar="FOLDER", help=f"({AGENT_STATE})")
    parser.add_argument("--quick", action="store_true", help="leave out what takes a GPU")
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    place = _place(options.controller_state, options.agent_state, quick=options.quick)
    results = []
    try:
        for result in examine(place, CHECKS):
            results.append(result)
            if not options.json:
                _print(result)
    finally:
        place.close()
    count = {state: sum(one.finding.state == state for one in results) for state in _COLOURS}
    if options.json:
        print_json({"roles": sorted(place.roles), "counts": count, "checks": _told(results)})
    else:
        print(f"{count['pass']} pass, {count['warn']} warn, {count['fail']} fail")
    return EXIT_FAILED if count["fail"] else 0


def _place(controller_state: str | None, agent_state: str | None, *, quick: bool) -> Place:
    settings = load_settings()
    place = Place(
        settings,
        controller_state or settings.text("controller.state", CONTROLLER_STATE),
        agent_state or settings.text("agent.state", AGENT_STATE),
        quick=quick,
    )
    for option, named, role in (
        ("--controller-state", controller_state, "controller"),
        ("--agent-state", agent_state, "agent"),
    ):
        if named and role not in place.roles:
            what = {"controller": "outboard controller init", "agent": "outboard join"}[role]
            raise UsageError(
                f"{option} {named}: there is no {role} in this folder, or it cannot be read",
                f"name the folder that was given to `{what}`; as its user: sudo outboard doctor",
            )
    return place


def _told(results: list[Result]) -> list[dict[str, str]]:
    return [
        {
            "check": one.check.name,
            "state": one.finding.state,
            "text": one.finding.text,
            "fix": one.finding.fix,
        }
        for one in results
    ]


def _print(result: Result) -> None:
    finding = result.finding
    mark = finding.state.upper() if finding.state in ("warn", "fail") else finding.state
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        mark = f"\x1b[{_COLOURS[finding.state]}m{mark}\x1b[0m"
    print(f"{mark}  {result.check.name}: {finding.text}", flush=True)
    if finding.fix:
        print(f"      {finding.fix}", flush=True)
