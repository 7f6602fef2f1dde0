"""Where a service's files lie: the session file, the socket, the lease that it keeps to itself.

SPDX-License-Identifier: Apache-2.0

    system   /run/outboard/NAME/session.json, sock
             /run/outboard/private/NAME/lease.json
    user     /run/user/UID/outboard/session.json (default), services/NAME/sock
             /run/user/UID/outboard/private/NAME/lease.json

Everything here varies and is gone after stop, or a power cut. Names are stable: environments name
them for as long as the service is installed.
"""

from __future__ import annotations

import os
import re

from outboard.errors import ConfigurationError, UsageError

SYSTEM_ROOT = "/run/outboard"
DEFAULT_NAME = "default"
USERS_FOLDER = "users"  # below SYSTEM_ROOT: one link per user who has a service to himself
# What else lies below SYSTEM_ROOT: an agent's state, where this machine is a GPU server as well.
_TAKEN = (USERS_FOLDER, "agent", "private")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")


class ServiceFolders:
    """One service's paths. `system` tells whether it is the machine's or a user's own."""

    def __init__(self, name: str, *, system: bool) -> None:
        if not _NAME.fullmatch(name) or name in _TAKEN:
            raise UsageError(
                f"{name!r} is not a name for a service",
                "use up to 32 lower-case letters, digits, dots and dashes: default",
            )
        self.name = name
        self.system = system
        if system:
            root = SYSTEM_ROOT
            self.folder = os.path.join(root, name)
            self.session_file = os.path.join(self.folder, "session.json")
        else:
            root = _user_root()
            self.folder = os.path.join(root, "services", name)
            where = root if name == DEFAULT_NAME else self.folder
            self.session_file = os.path.join(where, "session.json")
        self.socket = os.path.join(self.folder, "sock")
        self.environment_file = os.path.join(self.folder, "environment.json")
        # Beside the folder, which containers get as a whole: root in them is root to files.
        self.private = os.path.join(root, "private", name)
        self.lease_file = os.path.join(self.private, "lease.json")

    @property
    def unit(self) -> str:
        """The systemd unit, for messages."""
        return f"outboard@{self.name}.service"

    def systemctl(self, verb: str) -> str:
        """What to type to do something with the unit."""
        return f"systemctl {'' if self.system else '--user '}{verb} {self.unit}"

    def make(self) -> None:
        """Make the folders that systemd makes where there is one."""
        if not self.system and not os.path.isdir(f"/run/user/{os.getuid()}"):
            raise ConfigurationError(
                f"/run/user/{os.getuid()} does not exist: systemd-logind knows no session of yours",
                "have it made at boot: loginctl enable-linger, or use --system as root",
            )
        os.makedirs(self.folder, mode=0o755 if self.system else 0o700, exist_ok=True)
        os.makedirs(os.path.dirname(self.session_file), mode=0o700, exist_ok=True)
        os.makedirs(self.private, mode=0o700, exist_ok=True)
        os.chmod(self.private, 0o700)


def find_service(name: str) -> ServiceFolders:
    """The running service of that name as a program of this user would find it: his own first."""
    if os.path.isdir(f"/run/user/{os.getuid()}"):
        own = ServiceFolders(name, system=False)
        if os.path.exists(own.session_file):
            return own
    return ServiceFolders(name, system=True)


def _user_root() -> str:
    # Not $XDG_RUNTIME_DIR: cron sets none, and the shim looks where the uid says.
    return f"/run/user/{os.getuid()}/outboard"
