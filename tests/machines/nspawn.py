"""A machine with a real systemd as PID 1: an overlay of this host's root, booted by systemd-nspawn.

SPDX-License-Identifier: Apache-2.0

The checkout is masked and the built package installed, so that a package that lacks files fails.
Each machine has its own cgroup in every hierarchy, and no network but loopback unless it is given
one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.machines.guest import GUARD_S, Guest, eventually, furnish, host_call

# What this host starts besides is its own, and fails in a guest.
_WANTS = ("multi-user.target.wants", "default.target.wants", "timers.target.wants")
_HIERARCHIES = ("systemd", "unified", "memory", "pids", "cpu")


class Container(Guest):
    """A machine on this host's kernel."""

    def __init__(self, folder: Path, name: str, network: str = "") -> None:
        """`network` is a network namespace."""
        super().__init__(folder, name)
        self._network = network
        self.root = self.folder / "root"
        self._nspawn: subprocess.Popen[bytes] | None = None

    def prepare(self, package: Path, programs: Path) -> None:
        (self.folder / "upper").mkdir(parents=True)
        self._mount()
        for folder in _WANTS:
            shutil.rmtree(self.root / "etc/systemd/system" / folder, ignore_errors=True)
        furnish(self.root, package, programs)

    def copy(self, image: Container) -> None:
        """The root file system of another machine, which is off: a clone of it."""
        self.folder.mkdir()
        host_call("cp", "-a", str(image.folder / "upper"), str(self.folder / "upper"))
        self._mount()

    def _mount(self) -> None:
        """Put the root together; who it is, is found out at the next boot."""
        for name in ("work", "root"):
            (self.folder / name).mkdir()
        layers = f"lowerdir=/,upperdir={self.folder}/upper,workdir={self.folder}/work"
        host_call("mount", "-t", "overlay", "overlay", "-o", layers, str(self.root))
        (self.root / "etc/hostname").write_text(f"{self.name}\n", encoding="utf-8")
        (self.root / "etc/machine-id").write_text("", encoding="utf-8")
        (self.root / "var/lib/dbus/machine-id").unlink(missing_ok=True)

    def boot(self) -> float:
        started_s = time.monotonic()
        command = ["systemd-nspawn", "-q", "-D", str(self.root), "-M", self.name, "--boot"]
        command += ["--register=no", "--keep-unit", "--console=pipe", "--link-journal=no"]
        command += ["--tmpfs=/work", "--tmpfs=/dev/shm"]
        network = f"--network-namespace-path=/run/netns/{self._network}"
        command += [network if self._network else "--private-network"]
        with (self.folder / "console.log").open("ab") as console:
            self._nspawn = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                preexec_fn=lambda: _enter_cgroup(self.name),
                start_new_session=True,
            )
        eventually("systemd runs", lambda: bool(self.leader) and self._runs())
        return time.monotonic() - started_s

    @property
    def leader(self) -> int:
        """The guest's PID 1 as the host numbers it; 0 if there is none yet."""
        if self._nspawn is None:
            return 0
        path = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        try:
            children = path.read_text().split()
        except OSError:
            return 0
        return int(children[-1]) if children else 0

    def _enter(self, words: Sequence[str]) -> list[str]:
        return ["nsenter", "-t", str(self.leader), "-a", *words]

    def power_cut(self) -> None:
        if self.leader:
            os.kill(self.leader, signal.SIGKILL)
        self._reap()

    def power_off(self) -> None:
        self.call(["systemctl", "poweroff"])
        self._reap()

    def discard(self) -> None:
        if self._nspawn is not None and self._nspawn.poll() is None:
            self.power_cut()
        subprocess.run(["umount", str(self.root)], check=False)
        for hierarchy in _HIERARCHIES:
            top = Path(f"/sys/fs/cgroup/{hierarchy}/outboard-{self.name}")
            for folder, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    pass
        shutil.rmtree(self.folder, ignore_errors=True)

    def _reap(self) -> None:
        assert self._nspawn is not None
        try:
            self._nspawn.wait(GUARD_S)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._nspawn = None


def _enter_cgroup(name: str) -> None:
    for hierarchy in _HIERARCHIES:
        folder = Path(f"/sys/fs/cgroup/{hierarchy}/outboard-{name}")
        if folder.parent.is_dir():
            folder.mkdir(exist_ok=True)
            (folder / "cgroup.procs").write_text("0")
