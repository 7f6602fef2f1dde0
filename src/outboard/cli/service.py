"""`outboard service`: the client service of this machine or this user.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict

from outboard.cli.parser import Parser, print_json
from outboard.cli.service_install import env, import_, install, uninstall
from outboard.cli.service_options import add_place, add_request, folders_of, options_of
from outboard.errors import (
    OutboardError,
    ServiceNotRunning,
    UsageError,
    WaitedTooLong,
)
from outboard.service.client import ask
from outboard.service.folders import DEFAULT_NAME, find_service
from outboard.units import parse_duration_s

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
    from outboard.service.publish import publish_session, share_settings

    folders, request = folders_of(options), options_of(options)
    publish_session(folders, request)
    if folders.system:
        share_settings(folders)
    return 0


def _ended(words: list[str]) -> int:
    parser = Parser("service ended", "Release what a stopped service held (done by the unit).", "")
    add_place(parser)
    folders = folders_of(parser.parse_args(words))
    from outboard.service.daemon import EXIT_INCURABLE
    from outboard.service.holder import release_left_over
    from outboard.service.manager import stop_socket, unit_job
    from outboard.service.publish import unpublish

    job = unit_job(folders)
    gave_up = os.environ.get("EXIT_STATUS") == str(EXIT_INCURABLE)
    if job.kind == "stop" or (gave_up and not job.begins_anew):
        # Its socket would start it again for every program that asks.
        stop_socket(folders)
        unpublish(folders, socket_too=False)
    if job.kind != "stop":
        return 0
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
    parser.add_argument(
        "--from-unit", action="store_true", help="the options that the unit has (done by the unit)"
    )
    add_place(parser)
    add_request(parser)
    from outboard.service.manager import unit_request

    options = parser.parse_args(words)
    folders = folders_of(options)
    if options.from_unit:
        options = parser.parse_args(unit_request(folders))
    answer = ask(folders, "reload", options=asdict(options_of(options)))
    if options.json:
        print_json(answer)
    else:
        print(status_of(answer)["line"])
    return 0


def status_of(answer: dict[str, object]) -> dict[str, object]:
    """The state in a service's answer."""
    status = answer["status"]
    if not isinstance(status, dict):
        raise OutboardError("the GPU service's answer cannot be read", "restart the service")
    return status


_ACTIONS = {
    "install": install,
    "uninstall": uninstall,
    "import": import_,
    "env": env,
    "run": _run,
    "publish": _publish,
    "ended": _ended,
    "wait": _wait,
    "reload": _reload,
}
