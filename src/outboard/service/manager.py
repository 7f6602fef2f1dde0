"""What systemd is asked about a service's unit: its job, its request.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import subprocess

from outboard.service.folders import ServiceFolders
from outboard.service.installed import known_services
from outboard.service.unit_text import request_words

_TIMEOUT_S = 10.0


def unit_is_stopping(folders: ServiceFolders) -> bool:
    """Whether systemd's job for the unit is `stop`: only then nothing is left to take over.

    A restart's job is `restart`, a crash has none. Where systemd cannot be asked nothing is
    released: the lease runs out by itself.
    """
    listing = _systemctl(folders, "list-jobs", "--no-legend", "--plain")
    return job_of(listing, folders.unit) == "stop"


def unit_request(folders: ServiceFolders) -> list[str]:
    """The options that the unit has now, also where it was edited since it was started."""
    shown = _systemctl(folders, "show", "--property=ExecStart", "--value", folders.unit)
    return request_words(shown)


def stop_socket(folders: ServiceFolders) -> None:
    """Stop listening, without waiting: this runs inside a job of the same units."""
    _systemctl(folders, "--no-block", "stop", f"outboard@{folders.name}.socket")


def start_installed() -> None:
    """Start the machine's services that are enabled and have ended, without waiting."""
    for folders in known_services():
        if folders.system:
            _systemctl(folders, "--no-block", "start", folders.unit)


def job_of(listing: str, unit: str) -> str:
    """A unit's job in the list (number, unit, type, state): its type, empty if it has none."""
    for line in listing.splitlines():
        words = line.split()
        if len(words) >= 3 and words[1] == unit:
            return words[2]
    return ""


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
