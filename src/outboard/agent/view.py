"""A worker's own file system: libraries, devices and nothing else, in a mount namespace of its own.

SPDX-License-Identifier: Apache-2.0

Entered by a child of the agent, as root, before it becomes the worker. Nothing is left behind: all
mounts are in the child's namespace, and go with its last process.
"""

from __future__ import annotations

import ctypes
import glob
import os
from collections.abc import Iterable

_CLONE_NEWNS = 0x00020000
_CLONE_NEWIPC = 0x08000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_SYS_PIVOT_ROOT = 155

_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin")
# What the loader, drivers and the software GPU look up.
_SETTINGS = (
    *("/etc/ld.so.cache", "/etc/alternatives", "/etc/nvidia", "/etc/localtime"),
    *("/etc/machine-id", "/run/opengl-driver", "/nix/store"),
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/dxg")
_GPU_DEVICES = ("/dev/nvidia*", "/dev/nvidia-caps/*", "/dev/nvidia-caps-imex-channels/*")
_MS_SLAVE = 1 << 19
SCRATCH = "/tmp"
SCRATCH_BYTES = 64 * 1024 * 1024
_SCRATCH = (SCRATCH, "/dev/shm")

_libc = ctypes.CDLL(None, use_errno=True)


def gpu_devices() -> list[str]:
    """The nodes by which programs reach GPUs."""
    return [path for pattern in _GPU_DEVICES for path in glob.glob(pattern)]


def keep_mounts() -> None:
    """Keep what this process will mount to itself, if it may; the machine's mounts still come."""
    if os.geteuid() == 0 and _libc.unshare(_CLONE_NEWNS) == 0:
        _mount("none", "/", "", _MS_REC | _MS_SLAVE)


class View:
    """What a worker sees; `reads` are files and folders that it needs besides the system's.

    `place` is a folder to build it on; what lies in it is not touched.
    """

    def __init__(self, place: str, reads: Iterable[str]) -> None:
        self._place = os.path.join(place, "root")
        self._scratch = os.path.join(place, "scratch")
        self._reads = tuple(dict.fromkeys(reads))
        for folder in (self._place, self._scratch):
            os.makedirs(folder, mode=0o700, exist_ok=True)

    def add(self, uid: int) -> None:
        """Make what the workers of a user share, `/tmp` and `/dev/shm`, if it is not there."""
        place = self._scratch_of(uid)
        if os.path.isdir(place + _SCRATCH[0]):
            return
        os.makedirs(place, mode=0o700, exist_ok=True)
        options = f"mode=0755,size={SCRATCH_BYTES}"
        _mount("tmpfs", place, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)
        for path in _SCRATCH:
            os.makedirs(place + path)
            os.chmod(place + path, 0o1777)

    def drop(self, uid: int) -> None:
        """The user's last worker has gone."""
        place = self._scratch_of(uid)
        if os.path.isdir(place):
            _libc.umount2(place.encode(), _MNT_DETACH)
            os.rmdir(place)

    def _scratch_of(self, uid: int) -> str:
        return os.path.join(self._scratch, str(uid))

    def enter(self, uid: int) -> None:
        """Make it this process's root; raises `OSError`."""
        place, mask = self._place, os.umask(0o022)
        _checked("unshare", _libc.unshare(_CLONE_NEWNS | _CLONE_NEWIPC))
        _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
        _mount("tmpfs", place, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
        for path in _SCRATCH:
            os.makedirs(place + path)
            _mount(self._scratch_of(uid) + path, place + path, "", _MS_BIND)
        for path in (*_SYSTEM, *_SETTINGS):
            self._show(path)
        for path in self._reads:
            if not path.startswith(tuple(f"{top}/" for top in _SYSTEM)):
                self._show(path)
        for path in (*_DEVICES, *gpu_devices()):
            self._show(path, writable=True)
        self._show("/sys", deep=False)
        self._show_processes()
        _mount("", place, "", _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
        # The old root is put over the new one, and taken off it: no folder is needed for it.
        os.chdir(place)
        _checked("pivot_root", _libc.syscall(_SYS_PIVOT_ROOT, b".", b"."))
        _checked("umount", _libc.umount2(b".", _MNT_DETACH))
        os.chdir("/")
        os.umask(mask)

    def _show(self, path: str, *, writable: bool = False, deep: bool = True) -> None:
        """The same path there, if it is here."""
        target = self._place + path
        if os.path.islink(path) and path in _SYSTEM:
            os.symlink(os.readlink(path), target)
            return
        if os.path.isdir(path):
            os.makedirs(target, exist_ok=True)
        elif os.path.exists(path):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        else:
            return
        _mount(path, target, "", _MS_BIND | (_MS_REC if deep else 0))
        if not writable:
            kept = _MS_NODEV | _MS_NOSUID | _MS_BIND | _MS_REMOUNT | _MS_RDONLY
            _mount("", target, "", kept)

    def _show_processes(self) -> None:
        """Its own processes, where the kernel can hide others in one mount alone (5.8)."""
        target = self._place + "/proc"
        os.makedirs(target)
        try:
            flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
            _mount("proc", target, "proc", flags, "hidepid=invisible")
        except OSError:
            _mount("/proc", target, "", _MS_BIND | _MS_REC)
            return
        # Container runtimes put what the driver is to know over the kernel's own.
        if os.path.isdir("/proc/driver/nvidia"):
            _mount("/proc/driver/nvidia", target + "/driver/nvidia", "", _MS_BIND | _MS_REC)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    done = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, flags, options.encode() or None
    )
    _checked(f"mount {target}", done)


def _checked(what: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
