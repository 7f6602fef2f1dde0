"""What a service leaves where programs look: its session file, its environment, its socket.

SPDX-License-Identifier: Apache-2.0

The session file of a service holds names alone and never changes while the service is installed, so
that it can be written once, with root's rights, before the service runs without them.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from outboard.errors import ServiceRunning
from outboard.model.session_file import SessionFile, write_session_file
from outboard.service.folders import SYSTEM_ROOT, USERS_FOLDER, ServiceFolders
from outboard.service.options import ServiceOptions
from outboard.settings import load_settings

_BACKLOG = 128


def publish_session(folders: ServiceFolders, options: ServiceOptions) -> None:
    """Write the session file; a private one belongs to its user and shows itself to no other."""
    os.makedirs(folders.folder, mode=0o755, exist_ok=True)
    content = SessionFile(f"service-{folders.name}", socket=folders.socket)
    write_session_file(folders.session_file, content)
    _set_access(folders, options)
    if options.for_user and os.geteuid() == 0:
        entry = pwd.getpwnam(options.for_user)
        os.chmod(folders.session_file, 0o400)
        os.chown(folders.session_file, entry.pw_uid, entry.pw_gid)
        users = os.path.join(SYSTEM_ROOT, USERS_FOLDER)
        os.makedirs(users, exist_ok=True)
        os.chmod(users, 0o755)  # whatever the unit's umask: everybody's programs look in it
        _replace_link(folders.session_file, users_link(entry.pw_uid))


def unpublish(folders: ServiceFolders, *, socket_too: bool) -> None:
    """Take everything away that varies. What was never there is no failure.

    A socket that systemd made is systemd's to remove: its unit may go on, and would be deaf.
    """
    for path in (folders.session_file, folders.environment_file):
        _unlink_if_there(path)
    if socket_too:
        _unlink_if_there(folders.socket)
    users = os.path.join(SYSTEM_ROOT, USERS_FOLDER)
    for name in os.listdir(users) if folders.system and os.path.isdir(users) else ():
        path = os.path.join(users, name)
        if os.path.islink(path) and os.readlink(path) == folders.session_file:
            _unlink_if_there(path)


def users_link(uid: int) -> str:
    """Where a user's programs find the service that the machine holds for him alone."""
    return os.path.join(SYSTEM_ROOT, USERS_FOLDER, f"{uid}.json")


@contextmanager
def publish(folders: ServiceFolders, options: ServiceOptions) -> Iterator[socket.socket]:
    """The listening socket and the session file of a service that systemd does not run."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listener:
        if _answers(folders.socket):
            raise ServiceRunning(
                f"a service {folders.name} already answers on {folders.socket}",
                f"stop it ({folders.systemctl('stop')}), or name another with --name",
            )
        _unlink_if_there(folders.socket)
        mask = os.umask(0o777)
        try:
            listener.bind(folders.socket)
        finally:
            os.umask(mask)
        _set_access(folders, options)
        listener.listen(_BACKLOG)
        try:
            publish_session(folders, options)
            yield listener
        finally:
            unpublish(folders, socket_too=True)


def _set_access(folders: ServiceFolders, options: ServiceOptions) -> None:
    """Make the socket the right people's; systemd's own is as it was when it began to listen, which
    may be before an installation that said otherwise."""
    if not os.path.exists(folders.socket):
        return
    uid, gid, mode = _socket_access(options)
    if os.geteuid() == 0:
        os.chown(folders.socket, uid, gid)
    os.chmod(folders.socket, mode if folders.system else 0o600)


def _socket_access(options: ServiceOptions) -> tuple[int, int, int]:
    """(uid, gid, mode) of the socket: everybody's, one group's, or one user's."""
    if options.for_user:
        entry = pwd.getpwnam(options.for_user)
        return entry.pw_uid, entry.pw_gid, 0o600
    if options.group:
        return 0, grp.getgrnam(options.group).gr_gid, 0o660
    return os.geteuid(), os.getegid(), 0o666


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _replace_link(target: str, path: str) -> None:
    temporary = f"{path}.{os.getpid()}"
    _unlink_if_there(temporary)
    os.symlink(target, temporary)
    os.rename(temporary, path)


def _unlink_if_there(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def share_settings(folders: ServiceFolders) -> None:
    """Give the daemon, which is not root, what of the machine's settings it needs: a copy that only
    it reads. The machine's token stays root's."""
    from outboard.client.enrolment import is_copy  # ssl, tomllib: only where they are used
    from outboard.settings_file import write_settings

    settings = load_settings(machine=True)  # the user's file, here, is the copy of the last start
    owner = os.stat(folders.private)
    folder = os.path.join(folders.private, "outboard")
    values = {}
    names = ["pool", "token", "authority"]
    if is_copy():
        sys.stderr.write(
            "this machine is a copy of another, whose token it does not use; join it:"
            " outboard join TOKEN URL\n"
        )
        names = ["pool", "authority"]
    for name in names:
        found = settings.find(name)
        if found is not None:
            values[name] = found[0]
    if not values:
        return
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if "authority" in values:
        copy = os.path.join(folder, "authority.pem")
        shutil.copyfile(os.path.expanduser(values["authority"]), copy)
        values["authority"] = copy
        os.chown(copy, owner.st_uid, owner.st_gid)
    path = os.path.join(folder, "config.toml")
    write_settings(path, values)
    os.chown(path, owner.st_uid, owner.st_gid)
    os.chown(folder, owner.st_uid, owner.st_gid)
