"""Which services there are: installed ones, running ones, the machine's and this user's.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os

from outboard.errors import OutboardError
from outboard.service.folders import DEFAULT_NAME, SYSTEM_ROOT, ServiceFolders

SYSTEM_UNITS = "/etc/systemd/system"
_PREFIX, _SUFFIX = "outboard@", ".service.d"


def user_units() -> str | None:
    """The folder of this user's own units, or None without a home."""
    home = os.environ.get("HOME")
    base = os.environ.get("XDG_CONFIG_HOME") or (os.path.join(home, ".config") if home else "")
    return os.path.join(base, "systemd/user") if os.path.isabs(base) else None


def drop_in_folder(units: str, name: str) -> str:
    """Where the request of an installed service is written, for people to edit."""
    return os.path.join(units, f"{_PREFIX}{name}{_SUFFIX}")


def known_services() -> list[ServiceFolders]:
    """Every service that is installed or runs, this user's own first."""
    found: list[ServiceFolders] = []
    for system in (False, True):
        units = SYSTEM_UNITS if system else user_units()
        names = {*_installed(units), *_running(system)}
        for name in sorted(names, key=lambda name: (name != DEFAULT_NAME, name)):
            try:
                found.append(ServiceFolders(name, system=system))
            except OutboardError:
                continue  # a folder that is none of ours, or a user without a runtime folder
    return found


def _installed(units: str | None) -> list[str]:
    return [
        entry.removeprefix(_PREFIX).removesuffix(_SUFFIX)
        for entry in _entries(units)
        if entry.startswith(_PREFIX) and entry.endswith(_SUFFIX)
    ]


def _running(system: bool) -> list[str]:
    root = SYSTEM_ROOT if system else f"/run/user/{os.getuid()}/outboard/services"
    return [name for name in _entries(root) if os.path.exists(os.path.join(root, name, "sock"))]


def _entries(folder: str | None) -> list[str]:
    try:
        return os.listdir(folder) if folder else []
    except OSError:
        return []
