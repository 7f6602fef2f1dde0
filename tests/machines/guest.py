"""Machines with a real systemd as PID 1: an overlay of this host's root, booted by systemd-nspawn.

SPDX-License-Identifier: Apache-2.0

The checkout is masked and the built package installed, so that a package that lacks files fails.
Each machine has its own cgroup in every hierarchy, and no network but loopback unless it is given
one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = "/opt/programs"
USER = "user1"
# What a boot on two busy cores needs, four times over.
GUARD_S = 60.0
# Services of the host that a guest has no use for.
_DISABLED = ("postgresql.service", "docker.service", "containerd.service")
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_HIERARCHIES = ("systemd", "unified", "memory", "pids", "cpu")


class Hang(AssertionError):
    """Something did not happen within the hang guard."""


def eventually(what: str, look: Callable[[], T | None], guard_s: float = GUARD_S) -> T:
    """The first truthy thing that `look` returns; prints how long it took."""
    started_s = time.monotonic()
    while True:
        found = look()
        elapsed_s = time.monotonic() - started_s
        if found:
            print(f"{what}: after {elapsed_s:.2f} s")
            return found
        if elapsed_s > guard_s:
            raise Hang(f"{what}: not within {guard_s:.0f} s")
        time.sleep(0.05)


class Done:
    """A command's end."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class Guest:
    """One machine. `folder` is on a tmpfs, which overlays can be put on."""

    def __init__(self, folder: Path, name: str, network: str = "") -> None:
        """`network` is a network namespace."""
        self.name = name
        self._network = network
        self.folder = folder / name
        self.root = self.folder / "root"
        self._nspawn: subprocess.Popen[bytes] | None = None

    def prepare(self, package: Path, programs: Path) -> None:
        """The root file system: the host's, a user, the package's file, the test programs."""
        (self.folder / "upper").mkdir(parents=True)
        self._mount()
        for unit in _DISABLED:
            (self.root / "etc/systemd/system/multi-user.target.wants" / unit).unlink(
                missing_ok=True
            )
        for name in (USER, "user2"):
            _call("chroot", str(self.root), "useradd", "-m", "-s", "/bin/bash", name)
        shutil.copy(package, self.root / "var/outboard.deb")
        (self.root / PROGRAMS[1:]).mkdir(parents=True)
        for name in ("matrixMul", "longLoop"):
            shutil.copy(programs / name, self.root / PROGRAMS[1:])
        shutil.copy(ROOT / "tests/machines/keeper.py", self.root / PROGRAMS[1:])
        key = self.root / f"home/{USER}/.ssh/id_ed25519"
        key.parent.mkdir(mode=0o700)
        _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
        shutil.copy(f"{key}.pub", key.parent / "authorized_keys")
        _call("chroot", str(self.root), "chown", "-R", f"{USER}:", f"/home/{USER}")
        _call("chroot", str(self.root), "systemctl", "-q", "enable", "ssh", "cron")
        (self.root / "etc/sudoers.d").mkdir(exist_ok=True)
        (self.root / "etc/sudoers.d/user1").write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")

    def copy(self, image: Guest) -> None:
        """The root file system of another machine, which is off: a clone of it."""
        self.folder.mkdir()
        _call("cp", "-a", str(image.folder / "upper"), str(self.folder / "upper"))
        self._mount()

    def _mount(self) -> None:
        """Put the root together; who it is, is found out at the next boot."""
        for name in ("work", "root"):
            (self.folder / name).mkdir()
        layers = f"lowerdir=/,upperdir={self.folder}/upper,workdir={self.folder}/work"
        _call("mount", "-t", "overlay", "overlay", "-o", layers, str(self.root))
        (self.root / "etc/hostname").write_text(f"{self.name}\n", encoding="utf-8")
        (self.root / "etc/machine-id").write_text("", encoding="utf-8")
        (self.root / "var/lib/dbus/machine-id").unlink(missing_ok=True)

    def boot(self) -> float:
        """Power on; returns when systemd answers, with the seconds that it took."""
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
        eventually("systemd runs", self._systemd_answers)
        return time.monotonic() - started_s

    def _systemd_answers(self) -> bool:
        return bool(self.leader) and self.sh("systemctl is-system-running").out.strip() in (
            "starting",
            "running",
            "degraded",
        )

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

    def sh(self, script: str, timeout_s: float = GUARD_S) -> Done:
        """A script as the guest's root, outside of every login."""
        return self.call(["/bin/sh", "-c", script], timeout_s)

    def call(self, words: Sequence[str], timeout_s: float = GUARD_S) -> Done:
        """A command as the guest's root, with a bare environment."""
        enter = ["nsenter", "-t", str(self.leader), "-a"]
        done = subprocess.run(
            [*enter, *words],
            env=_ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return Done(done)

    def json(self, *words: str) -> Any:
        """What a command prints as JSON."""
        done = self.call(words)
        assert done.code == 0, done
        return json.loads(done.out)

    def service(self) -> dict[str, Any]:
        """What `outboard status` says of the machine's default service."""
        services = self.json("outboard", "status", "--json")["services"]
        return next((dict(one) for one in services if one["name"] == "default"), {})

    def state(self, wanted: str) -> dict[str, Any]:
        """Wait until the default service is in a state."""

        def look() -> dict[str, Any] | None:
            service = self.service()
            return service if service.get("state") == wanted else None

        try:
            return eventually(f"the service is {wanted}", look)
        except Hang as hang:
            journal = self.sh("journalctl -b --no-pager -u 'outboard*' | tail -40").out
            raise Hang(f"{hang}\n{self.service()}\n{journal}") from hang

    def sessions(self) -> list[str]:
        """The sessions that the pool has."""
        return [one["id"] for one in self.json("outboard", "sessions", "--json")["sessions"]]

    def start(self, words: Sequence[str]) -> subprocess.Popen[str]:
        """A command that goes on, with its stdin and stdout in the test's hands."""
        return subprocess.Popen(
            ["nsenter", "-t", str(self.leader), "-a", *words],
            env=_ENVIRONMENT,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def power_cut(self) -> None:
        """The machine is gone in an instant, without a farewell."""
        if self.leader:
            os.kill(self.leader, signal.SIGKILL)
        self._reap()

    def power_off(self) -> None:
        """An orderly shutdown."""
        self.call(["systemctl", "poweroff"])
        self._reap()

    def discard(self) -> None:
        """Whatever state it is in, take it away."""
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


def _call(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=GUARD_S)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
