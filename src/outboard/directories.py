"""Where this user's sockets, session files, logs and settings lie.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import stat

from outboard.errors import ConfigurationError

_LONGEST_SOCKET_PATH = 107  # sun_path, less its terminating zero


def runtime_directory() -> str:
    """The folder for sockets and session files, made with mode 0700 if it is missing.

    `$OUTBOARD_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/outboard`, else `/run/user/UID/outboard`, else
    `/tmp/outboard-UID`. What is found there must belong to this user, and nobody else may write in
    it: who can could put a socket of his own in the pool's place.
    """
    uid = os.geteuid()
    named = os.environ.get("OUTBOARD_RUNTIME_DIR")
    if named:
        return _private(os.path.abspath(named), "another folder in OUTBOARD_RUNTIME_DIR")
    for parent in (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{uid}"):
        # A folder of another user arrives here through `sudo -E`: it is passed over, not used.
        if parent and os.path.isabs(parent) and _owned_folder(parent, uid):
            return _private(os.path.join(parent, "outboard"), "a folder in OUTBOARD_RUNTIME_DIR")
    return _private(f"/tmp/outboard-{uid}", "a folder of your own in OUTBOARD_RUNTIME_DIR")


def sessions_directory(runtime: str) -> str:
    """The folder of the session files, below the runtime folder."""
    path = os.path.join(runtime, "sessions")
    os.makedirs(path, mode=0o700, exist_ok=True)
    return path


def pool_socket(runtime: str) -> str:
    """The Unix socket of this user's embedded pool."""
    path = os.path.join(runtime, "pool.sock")
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise ConfigurationError(
            f"the runtime folder {runtime} has too long a name for a socket in it",
            "name a shorter one in OUTBOARD_RUNTIME_DIR",
        )
    return path


def state_directory() -> str | None:
    """The folder for logs, made if it is missing; None where none can be had."""
    home = os.environ.get("HOME")
    base = os.environ.get("XDG_STATE_HOME") or (os.path.join(home, ".local/state") if home else "")
    return _writable(os.path.join(base, "outboard")) if os.path.isabs(base) else None


def cache_directory() -> str | None:
    """The folder for what can be computed again, made if missing; None where none can be had."""
    home = os.environ.get("HOME")
    base = os.environ.get("XDG_CACHE_HOME") or (os.path.join(home, ".cache") if home else "")
    return _writable(os.path.join(base, "outboard")) if os.path.isabs(base) else None


def user_configuration_file() -> str | None:
    """`~/.config/outboard/config.toml`, or None without a home."""
    home = os.environ.get("HOME")
    base = os.environ.get("XDG_CONFIG_HOME") or (os.path.join(home, ".config") if home else "")
    return os.path.join(base, "outboard/config.toml") if os.path.isabs(base) else None


def _private(path: str, instead: str) -> str:
    hint = f"remove it, or name {instead}"
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.lstat(path)
    except OSError as error:
        raise ConfigurationError(
            f"the runtime folder {path} cannot be made: {error.strerror}", hint
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(f"the runtime folder {path} is not a folder", hint)
    if found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"the runtime folder {path} belongs to uid {found.st_uid}, not to you", hint
        )
    if found.st_mode & 0o022:
        raise ConfigurationError(
            f"the runtime folder {path} can be written by others", f"chmod go-w {path}, or {hint}"
        )
    return path


def _owned_folder(path: str, uid: int) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid


def _writable(path: str) -> str | None:
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError:
        return None
    return path if os.access(path, os.W_OK | os.X_OK) else None
