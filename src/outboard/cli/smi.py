"""`outboard smi`: every GPU of the pool with who uses it, how much, and for what.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from typing import Any

from outboard.cli.parser import Parser, print_json, print_table
from outboard.cli.sessions import owner_of
from outboard.client.pool import open_pool
from outboard.errors import NotFound
from outboard.settings import load_settings
from outboard.units import format_mib

_EXAMPLES = """\
  outboard smi
  outboard smi --server gpu1
  outboard smi --json | jq '.devices[].sessions[].user'
"""
_HEADER = ["SERVER", "GPU", "NAME", "STATE", "SESSION", "USER", "GRANTED", "USED", "PROGRAM"]


def smi_command(words: list[str]) -> int:
    """A line for each GPU, and one for each session on it."""
    parser = Parser("smi", "Show the pool's GPUs with who uses them, and for what.", _EXAMPLES)
    parser.add_argument("--server", metavar="NAME", help="that GPU server alone")
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    pool = open_pool(load_settings())
    try:
        devices, sessions = pool.get("/v1/devices")["devices"], pool.get("/v1/sessions")["sessions"]
    finally:
        pool.close()
    assert isinstance(devices, list)
    assert isinstance(sessions, list)
    shown = [
        with_sessions(device, sessions)
        for device in devices
        if options.server in (None, device["node"])
    ]
    if options.server is not None and not shown:
        names = ", ".join(sorted({str(device["node"]) for device in devices})) or "none"
        raise NotFound(
            f"no GPU is on {options.server}; servers with GPUs: {names}", "outboard gpus"
        )
    if options.json:
        print_json({"devices": shown})
    elif not shown:
        print("the pool has no GPUs yet; add a server: outboard tokens create --join node")
    else:
        print_table(_HEADER, [row for device in shown for row in _rows(device)])
    return 0


def with_sessions(device: dict[str, Any], sessions: list[dict[str, Any]]) -> dict[str, Any]:
    """A device with its sessions; `others_bytes` is granted to such as one may not see.

    `used_bytes` is null where a session's programs have not been counted.
    """
    key = device["node"], device["index"]
    users = [
        {
            "id": session["id"],
            "user": owner_of(session),
            "pid": session["pid"],
            "program": session["program"],
            "granted_bytes": held["share_bytes"],
            "used_bytes": held["held_bytes"],
        }
        for session in sessions
        for held in session["devices"]
        if (held["node"], held["index"]) == key
    ]
    used = [one["used_bytes"] for one in users]
    others = max(0, device["granted_bytes"] - sum(one["granted_bytes"] for one in users))
    known = not others and None not in used
    return {
        **device,
        "sessions": users,
        "others_bytes": others,
        "used_bytes": sum(used) if known else None,
    }


def _rows(device: dict[str, Any]) -> list[list[str]]:
    granted = f"{device['granted_bytes'] >> 20} of {format_mib(device['capacity_bytes'])}"
    rows = [
        [
            str(device["node"]),
            str(device["index"]),
            str(device["name"]),
            _state(device),
            "-",
            "-",
            granted,
            _amount(device["used_bytes"]),
            "-",
        ]
    ]
    for one in device["sessions"]:
        amounts = [_amount(one["granted_bytes"]), _amount(one["used_bytes"])]
        rows.append(
            ["", "", "", "", one["id"], str(one["user"]), *amounts, str(one["program"])[:40] or "-"]
        )
    if device["others_bytes"]:
        rows.append(["", "", "", "", "-", "others", _amount(device["others_bytes"]), "N/A", "-"])
    return rows


def _state(device: dict[str, Any]) -> str:
    """What is wrong comes before what was decided; the embedded pool knows neither."""
    if not device.get("healthy", True):
        return "bad"
    return str(device.get("state", "ready"))


def _amount(value: int | None) -> str:
    return "N/A" if value is None else format_mib(value)
