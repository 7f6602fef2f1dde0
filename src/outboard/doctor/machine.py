"""Checks of the machine itself: files, limits, disk, what was left over, what shadows the shim.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import resource
import shlex
import socket

from outboard import __version__
from outboard.directories import pool_socket, runtime_directory, state_directory
from outboard.doctor.place import Place
from outboard.doctor.registry import (
    AGENT,
    CLIENT,
    CONTROLLER,
    Finding,
    check,
    failure,
    good,
    warning,
)
from outboard.native import find_native_files
from outboard.run.holder import held_sessions
from outboard.service.loader import cached
from outboard.units import GIB, MIB, format_mib

_LEAST_FILES, _GOOD_FILES = 256, 1024
_LEAST_DISK_BYTES, _GOOD_DISK_BYTES = 100 * MIB, GIB
_OURS = ("libcuda.so", "libnvidia-ml.so")


@check("release")
def release(place: Place) -> Finding:
    """Which release this is; others are compared with it."""
    roles = ", ".join(sorted(place.roles))
    return good(f"outboard {__version__}, as {roles}")


@check("native files", CLIENT)
def native_files(_place: Place) -> Finding:
    """The libraries that programs load."""
    native = find_native_files()
    native.require_shim()
    return good(native.shim_folder)


@check("loader", CLIENT, needs="native files")
def loader(place: Place) -> Finding:
    """Nothing is loaded in the shim's place."""
    shim = os.path.realpath(find_native_files().shim_folder)
    for path in place.environment.get("LD_PRELOAD", "").replace(":", " ").split():
        if os.path.basename(path).startswith(_OURS) and not _in(path, shim):
            return failure(f"LD_PRELOAD puts {path} in the shim's place", "unset LD_PRELOAD")
    folders = place.environment.get("LD_LIBRARY_PATH", "").split(":")
    for folder in filter(None, folders):
        if os.path.realpath(folder) == shim:
            break  # the shim comes first
        if os.path.exists(os.path.join(folder, "libcuda.so.1")):
            if "OUTBOARD_SESSION" not in place.environment:
                # `outboard run` puts the shim in front of it.
                return good(f"outside of a session, {folder} has a libcuda.so.1 of its own")
            others = (part for part in folders if part and part != folder)
            rest = ":".join(part for part in others if os.path.realpath(part) != shim)
            return failure(
                f"LD_LIBRARY_PATH has {folder} before the shim's folder, with another libcuda.so.1",
                f"export LD_LIBRARY_PATH={shlex.quote(f'{shim}:{rest}' if rest else shim)}",
            )
    return good("programs find the shim first")


@check("open files")
def open_files(_place: Place) -> Finding:
    """Every program, worker and connection takes some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    say = str(soft) if soft != resource.RLIM_INFINITY else "unlimited"
    if soft == resource.RLIM_INFINITY or soft >= _GOOD_FILES:
        return good(f"{say} may be open at once")
    enough = hard == resource.RLIM_INFINITY or hard >= _GOOD_FILES
    fix = f"ulimit -n {_GOOD_FILES}" if enough else "raise nofile in /etc/security/limits.conf"
    made = failure if soft < _LEAST_FILES else warning
    return made(f"{say} may be open at once; {_GOOD_FILES} are wanted", fix)


@check("disk")
def disk(place: Place) -> Finding:
    """Logs, caches, the ledger and an agent's records need room."""
    folders = [runtime_directory()]
    state = state_directory()
    folders += [state] if state else []
    folders += [place.controller_state] if CONTROLLER in place.roles else []
    folders += [place.agent_state] if AGENT in place.roles else []
    free = {folder: free_bytes(folder) for folder in folders}
    folder, least = min(free.items(), key=lambda item: item[1])
    if least >= _GOOD_DISK_BYTES:
        return good(f"at least {format_mib(least)} are free ({folder})")
    made = failure if least < _LEAST_DISK_BYTES else warning
    return made(f"{format_mib(least)} are free for {folder}", f"make room: df -h {folder}")


def free_bytes(folder: str) -> int:
    """What an ordinary user can still write there."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


@check("leftovers", CLIENT)
def leftovers(place: Place) -> Finding:
    """Files of pools and sessions that have ended otherwise than they should."""
    runtime = runtime_directory()
    held_sessions()  # takes away the records of holders that were killed
    stale = []
    path = pool_socket(runtime)
    if os.path.exists(path) and not _answers(path):
        stale.append(path)
        sessions = os.path.join(runtime, "sessions")
        if not place.configured and os.path.isdir(sessions):
            stale += [os.path.join(sessions, name) for name in sorted(os.listdir(sessions))]
    if not stale:
        return good(f"nothing ({runtime})")
    words = " ".join(shlex.quote(path) for path in stale)
    return warning(
        f"{len(stale)} files of a pool that was killed; the next one takes them away", f"rm {words}"
    )


@check("local driver", CLIENT)
def local_driver(_place: Place) -> Finding:
    """A driver beside the shim is no fault; whoever loads it uses another GPU."""
    shim = os.path.realpath(find_native_files().shim_folder)
    others = [path for path in cached("libcuda.so.1") if not _in(path, shim)]
    if not others:
        return good("none")
    return good(f"{others[0]}: programs outside of sessions use this machine's own GPUs")


def _in(path: str, folder: str) -> bool:
    return os.path.realpath(os.path.dirname(path)) == folder


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(path)
        except OSError:
            return False
    return True
