"""Who asks on the service's socket, as the kernel says, and whether he may use it.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct

from outboard.errors import ConfigurationError
from outboard.service.options import ServiceOptions

_CREDENTIALS = struct.Struct("3i")


class Asker:
    """A process at the other end of a Unix socket."""

    def __init__(self, pid: int, uid: int, gid: int) -> None:
        self.pid = pid
        self.uid = uid
        self.gid = gid

    @property
    def user(self) -> str:
        """The user's name, or the uid where it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)


def asker_of(connection: socket.socket) -> Asker:
    """Who connected; the kernel noted it when he did."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Asker(*_CREDENTIALS.unpack(data))


class Access:
    """The rule: everybody, one group, or one user. Root and the service itself always may."""

    def __init__(self, options: ServiceOptions) -> None:
        self._uid = _uid_of(options.for_user) if options.for_user else None
        self._gid = _gid_of(options.group) if options.group else None
        self._group = options.group

    def refusal(self, asker: Asker) -> str:
        """Why this asker may not use the session; empty if he may."""
        if self.administers(asker):
            return ""
        if self._uid is not None and asker.uid != self._uid:
            return f"the GPU service here is for one user, who is not {asker.user}"
        if self._gid is not None and not self._in_group(asker):
            return f"the GPU service here is for the group {self._group}; {asker.user} is not in it"
        return ""

    def administers(self, asker: Asker) -> bool:
        """Whether this asker may see everything and change it."""
        return asker.uid in (0, os.geteuid())

    def _in_group(self, asker: Asker) -> bool:
        # The account's groups, not the process's: these the kernel does not tell of a peer.
        if asker.gid == self._gid:
            return True
        try:
            entry = pwd.getpwuid(asker.uid)
        except KeyError:
            return False
        return self._gid in os.getgrouplist(entry.pw_name, entry.pw_gid)


def _uid_of(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ConfigurationError(
            f"there is no user {name} on this machine", "name one that exists in --for-user"
        ) from None


def _gid_of(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigurationError(
            f"there is no group {name} on this machine",
            f"make it (groupadd --system {name}), or name another in --group",
        ) from None
