"""Whether a unit ends because it is to be stopped, and not restarted.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import subprocess

from outboard.service.folders import ServiceFolders


def unit_is_stopping(folders: ServiceFolders) -> bool:
    """Whether systemd's job for the unit is `stop`: only then nothing is left to take over.

    A restart's job is `restart`, a crash has none. Where systemd cannot be asked nothing is
    released: the lease runs out by itself.
    """
    manager = [] if folders.system else ["--user"]
    command = ["systemctl", *manager, "list-jobs", "--no-legend", "--plain"]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return job_of(done.stdout, folders.unit) == "stop"


def job_of(listing: str, unit: str) -> str:
    """A unit's job in the list (number, unit, type, state): its type, empty if it has none."""
    for line in listing.splitlines():
        words = line.split()
        if len(words) >= 3 and words[1] == unit:
            return words[2]
    return ""
