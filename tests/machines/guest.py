"""A machine under test: what is done in it, and what is waited for, whatever it is made of.

SPDX-License-Identifier: Apache-2.0

`nspawn.py` boots one on this kernel, in a second or two; `qemu.py` one with a kernel of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = "/opt/programs"
USER = "user1"
# Nothing takes that long on a machine that is not stuck, however slow it is.
GUARD_S = 180.0
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
# Each thing that was waited for or measured, and the seconds it took: the table at the end.
TIMES: list[tuple[str, float]] = []
# What the sessions of display managers consist of.
_DESKTOP_PAM = """\
account include common-account
session required pam_env.so readenv=1
session include common-session
"""


def measured(what: str, seconds: float) -> None:
    """A figure for the table at the end."""
    TIMES.append((what, seconds))


class Hang(AssertionError):
    """Something did not happen within the hang guard."""


def eventually(what: str, look: Callable[[], T | None], guard_s: float = GUARD_S) -> T:
    """The first truthy thing that `look` returns."""
    started_s = time.monotonic()
    while True:
        found = look()
        elapsed_s = time.monotonic() - started_s
        if found:
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


class Guest(ABC):
    """One machine. `folder` is on a tmpfs."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.folder = folder / name

    @abstractmethod
    def prepare(self, package: Path, programs: Path) -> None:
        """Its disk: a system, users, the package's file, the test programs."""

    @abstractmethod
    def boot(self) -> float:
        """Power on; returns when systemd answers, with the seconds that it took."""

    @abstractmethod
    def power_cut(self) -> None:
        """The machine is gone in an instant, without a farewell."""

    @abstractmethod
    def power_off(self) -> None:
        """An orderly shutdown."""

    @abstractmethod
    def discard(self) -> None:
        """Whatever state it is in, take it away."""

    @abstractmethod
    def _enter(self, words: Sequence[str]) -> list[str]:
        """A command of this host that runs `words` in the machine, as root, in `/`, with nothing of
        a login and with `ENVIRONMENT` alone."""

    def sh(self, script: str, timeout_s: float = GUARD_S) -> Done:
        """A script as the guest's root, outside of every login."""
        return self.call(["/bin/sh", "-c", script], timeout_s)

    def call(self, words: Sequence[str], timeout_s: float = GUARD_S, text: str = "") -> Done:
        """A command as the guest's root, with a bare environment; `text` is its stdin."""
        done = subprocess.run(
            self._enter(words),
            env=ENVIRONMENT,
            cwd="/",
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return Done(done)

    def start(self, words: Sequence[str]) -> subprocess.Popen[str]:
        """A command that goes on, with its stdin and stdout in the test's hands."""
        return subprocess.Popen(
            self._enter(words),
            env=ENVIRONMENT,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def write(self, path: str, text: str) -> None:
        """A file in the machine, which runs; its folder is made."""
        done = self.call(["sh", "-c", f"mkdir -p {os.path.dirname(path)}; cat > {path}"], text=text)
        assert done.code == 0, done

    def send(self, folder: Path, to: str) -> None:
        """What is in a folder of this host, into one of the machine, for all to read."""
        words = self._enter(["/bin/sh", "-c", f"mkdir -p {to} && tar -C {to} --no-same-owner -x"])
        pack = ["tar", "-C", str(folder), "--mode=a+rX", "-c", "."]
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as packed:
            done = subprocess.run(words, stdin=packed.stdout, cwd="/", timeout=GUARD_S, check=False)
        assert (done.returncode, packed.returncode) == (0, 0)

    def install(self) -> None:
        """The package, as an administrator installs it."""
        done = self.sh("apt-get -q -y install /var/outboard*.deb")
        assert done.code == 0, done

    def json(self, *words: str) -> Any:
        """What a command prints as JSON."""
        done = self.call(words)
        assert done.code == 0, done
        return json.loads(done.out)

    def service(self) -> dict[str, Any]:
        """What `outboard status` says of the machine's default service."""
        services = self.json("outboard", "status", "--json")["services"]
        return next((dict(one) for one in services if one["name"] == "default"), {})

    def state(self, wanted: str, guard_s: float = GUARD_S) -> dict[str, Any]:
        """Wait until the default service is in a state."""

        def look() -> dict[str, Any] | None:
            service = self.service()
            return service if service.get("state") == wanted else None

        try:
            return eventually(f"the service is {wanted}", look, guard_s)
        except Hang as hang:
            journal = self.sh("journalctl -b --no-pager -u 'outboard*' | tail -40").out
            raise Hang(f"{hang}\n{self.service()}\n{journal}") from hang

    def sessions(self) -> list[str]:
        """The sessions that the pool has."""
        return [one["id"] for one in self.json("outboard", "sessions", "--json")["sessions"]]

    def _runs(self) -> bool:
        """Whether its systemd answers."""
        known = ("starting", "running", "degraded")
        return self.sh("systemctl is-system-running").out.strip() in known


def furnish(root: Path, package: Path, programs: Path) -> None:
    """Users, their keys, the package's file and the test programs in a root file system."""
    for name in (USER, "user2"):
        host_call("chroot", str(root), "useradd", "-m", "-s", "/bin/bash", name)
    shutil.copy(package, root / "var/outboard.deb")
    (root / PROGRAMS[1:]).mkdir(parents=True)
    for name in ("matrixMul", "longLoop"):
        shutil.copy(programs / name, root / PROGRAMS[1:])
    for name in ("keeper.py", "contain.py", "podman.sh", "desktop.sh", "notebook.py"):
        shutil.copy(ROOT / "tests/machines" / name, root / PROGRAMS[1:])
    key = root / f"home/{USER}/.ssh/id_ed25519"
    key.parent.mkdir(mode=0o700)
    host_call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    shutil.copy(f"{key}.pub", key.parent / "authorized_keys")
    host_call("chroot", str(root), "chown", "-R", f"{USER}:", f"/home/{USER}")
    host_call("chroot", str(root), "systemctl", "-q", "enable", "ssh", "cron")
    (root / "etc/pam.d/desktop").write_text(_DESKTOP_PAM, encoding="utf-8")
    (root / "etc/sudoers.d").mkdir(exist_ok=True)
    (root / "etc/sudoers.d/user1").write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")


def host_call(*words: str) -> None:
    """A command of this host that has to succeed."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=GUARD_S)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
