"""`outboard status`: one screen that says why there are GPUs here or why not, and what to do.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from outboard.cli.parser import Parser, print_json
from outboard.client.pool import open_pool
from outboard.errors import OutboardError
from outboard.model.session_file import find_session_file
from outboard.service.client import ask
from outboard.service.folders import ServiceFolders
from outboard.service.installed import known_services
from outboard.service.manager import unit_failure
from outboard.settings import load_settings
from outboard.units import format_duration

_EXAMPLES = """\
  outboard status
  outboard status --json | jq -r '.services[].state'
"""
_LABEL = 10


def status_command(words: list[str]) -> int:
    """Show what this user's programs get, and why."""
    parser = Parser("status", "Say why there are GPUs here, or why not, and what to do.", _EXAMPLES)
    parser.add_argument("--json", action="store_true", help="for programs to read")
    options = parser.parse_args(words)
    services = [_service(folders) for folders in known_services()]
    session = find_session_file()
    pool = _pool()
    if options.json:
        print_json({"services": services, "session": session, "pool": pool})
        return 0
    for service in services:
        _print_service(service)
    if not services:
        _row("service", "none is installed on this machine")
    _row("pool", str(pool["text"]))
    _row("programs", f"use {session}" if session else "have no session")
    _row("next", _next(services, session, pool))
    return 0


def _service(folders: ServiceFolders) -> dict[str, object]:
    head: dict[str, object] = {
        "name": folders.name,
        "system": folders.system,
        "session_file": folders.session_file,
    }
    try:
        answer = ask(folders, "status")
    except OutboardError as error:
        failure = unit_failure(folders)
        start = f"when that is mended: {folders.systemctl('start')}"
        return {
            **head,
            "state": "not running" if error.code == "service_not_running" else "closed",
            "reason": failure or error.message,
            "next": start if failure else error.hint,
        }
    status = answer["status"]
    assert isinstance(status, dict)
    return {**head, **status, "processes": answer["processes"], "others": answer["others"]}


def _pool() -> dict[str, object]:
    settings = load_settings()
    configured = settings.find("pool")
    if configured is None:
        return {"configured": None, "reachable": None, "text": "none is configured: this machine's"}
    url, source = configured
    try:
        pool = open_pool(settings, start=False)
        pool.get("/healthz")
        pool.close()
    except OutboardError as error:
        text = f"{url} does not answer: {error.message}"
        return {"configured": url, "reachable": False, "text": text, "next": error.hint}
    return {"configured": url, "reachable": True, "text": f"{url} answers ({source})"}


def _print_service(service: dict[str, object]) -> None:
    whose = "this machine's" if service["system"] else "your own"
    _row("service", f"{service['name']} ({whose}): {service['state']}")
    if "line" not in service:
        _row("", str(service["reason"]))
        return
    _row("", str(service["line"]))
    if service["ends_in_s"] is not None:
        left = format_duration(float(str(service["ends_in_s"])))
        _row("ends in", f"{left}: the pool limits how long a session lives")
    if service["notice"]:
        _row("warning", str(service["notice"]))
    processes = service["processes"]
    assert isinstance(processes, list)
    for process in processes:
        age = format_duration(process["age_s"])
        _row("used by", f"{process['user']}: {process['program']} (pid {process['pid']}, {age})")
    if service["others"]:
        _row("used by", f"{service['others']} programs of other users")


def _next(services: list[dict[str, object]], session: str | None, pool: dict[str, object]) -> str:
    for service in services:
        if service["state"] in ("active", "standby"):
            return "nothing: CUDA programs find their GPUs by themselves"
        if service["state"] == "not running":
            return str(service["next"])
        if service["state"] == "ended":
            manager = "sudo systemctl" if service["system"] else "systemctl --user"
            return f"ask who ended it; then: {manager} reload outboard@{service['name']}"
    if pool.get("next"):
        return str(pool["next"])
    if services:
        return "wait: the service tries again by itself"
    if session:
        return "nothing: programs of this shell use its session"
    return "for one program: outboard run -n 1 -- COMMAND; for all: outboard service install -n 1"


def _row(label: str, text: str) -> None:
    print(f"{label:{_LABEL}}{text}")
