"""`outboard sessions`: who uses the pool's GPUs.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import pwd

from outboard.cli.parser import Parser, print_json, print_table
from outboard.client.pool import open_pool
from outboard.errors import PoolUnreachable, UsageError
from outboard.settings import load_settings
from outboard.units import format_duration, format_mib

_EXAMPLES = """\
  outboard sessions
  outboard sessions end s-5f0c2a91d3b8 --reason 'the server is needed'
  outboard sessions --json
"""


def sessions_command(words: list[str]) -> int:
    """List the sessions. A pool that does not run has none, and is not started for this."""
    parser = Parser("sessions", "List the sessions that use the pool's GPUs.", _EXAMPLES)
    parser.add_argument("action", nargs="?", choices=("list", "end"), default="list")
    parser.add_argument("session", nargs="?", help="end: which")
    parser.add_argument("--reason", default="", help="end: what its user is told")
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    if options.action == "end":
        return _end(options.session, options.reason, as_json=options.json)
    settings = load_settings()
    try:
        pool = open_pool(settings, start=False)
    except PoolUnreachable:
        if settings.find("pool"):
            raise
        answer: dict[str, object] = {"sessions": []}
    else:
        answer = pool.get("/v1/sessions")
        pool.close()
    if options.json:
        print_json(answer)
        return 0
    sessions = answer["sessions"]
    assert isinstance(sessions, list)
    if sessions:
        print_table(
            ["SESSION", "USER", "PID", "GPUS", "GRANTED", "USED", "PROGRAMS", "AGE", "COMMAND"],
            [_row(session) for session in sessions],
        )
        for session in sessions:
            if session.get("notice"):
                print(session["notice"])
    else:
        print("no sessions")
    return 0


def _end(session: str | None, reason: str, *, as_json: bool) -> int:
    if not session:
        raise UsageError("which session?", "outboard sessions end ID; see: outboard sessions")
    from urllib.parse import quote

    path = f"/v1/sessions/{quote(session, safe='')}"
    pool = open_pool(load_settings(), start=False)
    try:
        if pool.resumable:
            answer = pool.call("DELETE", f"{path}?reason={quote(reason or 'ended', safe='')}")
        else:
            answer = pool.call("DELETE", path, {"reason": reason} if reason else None)
    finally:
        pool.close()
    if as_json:
        print_json(answer)
    else:
        print(f"{session} has ended")
    return 0


def _row(session: dict[str, object]) -> list[str]:
    devices = session["devices"]
    assert isinstance(devices, list)
    held = [device["held_bytes"] for device in devices]
    used = "N/A" if None in held else format_mib(sum(held))
    return [
        str(session["id"]),
        owner_of(session),
        str(session["pid"]),
        ",".join(f"{device['node']}:{device['index']}" for device in devices),
        format_mib(sum(device["share_bytes"] for device in devices)),
        used,
        str(session["programs"]),
        format_duration(float(str(session["age_s"]))),
        str(session["program"])[:60],
    ]


def owner_of(session: dict[str, object]) -> str:
    """Whose it is: a controller knows its users' names, this machine's own pool their uids."""
    uid = int(str(session["uid"]))
    if session.get("user"):
        return str(session["user"])
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
