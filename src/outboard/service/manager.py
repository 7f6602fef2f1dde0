"""What systemd is asked about a service's unit: its job, its request.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from outboard.service.folders import ServiceFolders
from outboard.service.installed import known_services
from outboard.service.unit_text import request_words

_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Job:
    """What systemd is about to do with a unit: `stop`, `restart`, `start`; empty after a crash."""

    kind: str = ""
    state: str = ""

    @property
    def begins_anew(self) -> bool:
        """Whether a start is to come. One that runs is the start that has just failed."""
        return self.kind == "restart" or (self.kind == "start" and self.state == "waiting")


def unit_job(folders: ServiceFolders) -> Job:
    """The unit's job. Only after a `stop` nothing is left to take over. Where systemd cannot be
    asked nothing is released: the lease runs out by itself."""
    return job_of(_systemctl(folders, "list-jobs", "--no-legend", "--plain"), folders.unit)


def unit_failure(folders: ServiceFolders) -> str:
    """Why the unit has failed, as its service told systemd; empty if it has not."""
    shown = _systemctl(folders, "show", "--property=ActiveState,StatusText", folders.unit)
    told = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    return told.get("StatusText", "") if told.get("ActiveState") == "failed" else ""


def unit_request(folders: ServiceFolders) -> list[str]:
    """The options that the unit has now, also where it was edited since it was started."""
    shown = _systemctl(folders, "show", "--property=ExecStart", "--value", folders.unit)
    return request_words(shown)


def stop_socket(folders: ServiceFolders) -> None:
    """Stop listening, without waiting: this runs inside a job of the same units. A start of the
    service that comes later calls it off; one that came just before found the socket still there,
    and would be deaf."""
    unit = f"outboard@{folders.name}.socket"
    _systemctl(folders, "--no-block", "stop", unit)
    if unit_job(folders).begins_anew:
        _systemctl(folders, "--no-block", "start", unit)


def start_installed() -> None:
    """Start the machine's services that are enabled and have ended, without waiting."""
    for folders in known_services():
        if folders.system:
            _systemctl(folders, "--no-block", "start", folders.unit)


def job_of(listing: str, unit: str) -> Job:
    """A unit's job in the list: number, unit, kind, state."""
    for line in listing.splitlines():
        words = line.split()
        if len(words) >= 4 and words[1] == unit:
            return Job(words[2], words[3])
    return Job()


def _systemctl(folders: ServiceFolders, *words: str) -> str:
    """What systemctl prints; empty where it cannot be asked."""
    manager = [] if folders.system else ["--user"]
    try:
        done = subprocess.run(
            ["systemctl", *manager, *words],
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
