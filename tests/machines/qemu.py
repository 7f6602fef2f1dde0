"""A machine with a kernel of its own: Debian's cloud kernel in QEMU, whose processor is software.

SPDX-License-Identifier: Apache-2.0

Its disk is a file system made from a plain Debian (`tools/machines.sh --vm` keeps one) and nothing
of this host. It has two network cards: the cable, in the network of the machines, and one for the
tests, by which it is reached over ssh whatever becomes of the cable.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from tests.machines.guest import ENVIRONMENT, GUARD_S, Guest, eventually, furnish, host_call
from tests.machines.network import Network

_DISK = "3G"
_MEMORY = "1024"
_SSH_PORT = 2222
_CARDS = {"cable": "52:54:00:77:00:01", "tests": "52:54:00:77:00:02"}
_NETWORK = "[Match]\nMACAddress={mac}\n[Network]\nAddress={address}/24\n"
_KERNEL_LINE = "root=/dev/vda rw console=ttyS0 quiet"


class VirtualMachine(Guest):
    """A machine in QEMU. `base` is an archive of the root file system of a plain Debian."""

    def __init__(self, folder: Path, name: str, network: Network, base: Path) -> None:
        super().__init__(folder, name)
        self._network = network
        self.base = base
        self._uuid = str(uuid.uuid4())
        self._cable = network.ports.get(name, "")
        self._key = self.folder / "key"
        self._control = self.folder / "ssh"
        self._qemu: subprocess.Popen[bytes] | None = None

    def prepare(self, package: Path, programs: Path) -> None:
        root = self.folder / "root"
        root.mkdir(parents=True)
        host_call("tar", "-xf", str(self.base), "-C", str(root))
        furnish(root, package, programs)
        (root / "etc/hostname").write_text(f"{self.name}\n", encoding="utf-8")
        (root / "etc/machine-id").write_text("", encoding="utf-8")
        host_call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._key))
        (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        shutil.copy(f"{self._key}.pub", root / "root/.ssh/authorized_keys")
        addresses = {"cable": self._network.addresses[self.name], "tests": "10.0.2.15"}
        for card, mac in _CARDS.items():
            text = _NETWORK.format(mac=mac, address=addresses[card])
            (root / f"etc/systemd/network/{card}.network").write_text(text, encoding="utf-8")
        host_call("chroot", str(root), "systemctl", "-q", "enable", "systemd-networkd")
        for name in ("vmlinuz", "initrd.img"):
            (found,) = (root / "boot").glob(f"{name}-*")
            shutil.copy(found, self.folder / name)
        host_call("mke2fs", "-q", "-t", "ext4", "-d", str(root), str(self.folder / "disk"), _DISK)
        shutil.rmtree(root)

    def copy(self, image: VirtualMachine) -> None:
        """Another machine, which is off, as its hypervisor copies it: disk, cable and all."""
        shutil.copytree(image.folder, self.folder, copy_function=_copy_sparse)
        self._cable = image._cable

    def boot(self) -> float:
        started_s = time.monotonic()
        self._control.unlink(missing_ok=True)
        with (self.folder / "console.log").open("ab") as console:
            self._qemu = subprocess.Popen(
                [*self._network.inside_fabric, *self._command()],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        eventually("systemd runs", self._runs)
        return time.monotonic() - started_s

    def _command(self) -> list[str]:
        cable = f"tap,id=cable,ifname={self._cable},script=no,downscript=no"
        tests = f"user,id=tests,restrict=on,hostfwd=tcp:127.0.0.1:{_SSH_PORT}-:22"
        command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"]
        command += ["-machine", "q35", "-smp", "2", "-m", _MEMORY, "-uuid", self._uuid]
        command += ["-nodefaults", "-no-reboot"]
        command += ["-display", "none", "-serial", "stdio", "-device", "virtio-rng-pci"]
        command += ["-kernel", f"{self.folder}/vmlinuz", "-initrd", f"{self.folder}/initrd.img"]
        command += ["-append", _KERNEL_LINE]
        command += ["-drive", f"file={self.folder}/disk,format=raw,if=virtio"]
        for card, netdev in (("cable", cable), ("tests", tests)):
            device = f"virtio-net-pci,netdev={card},mac={_CARDS[card]}"
            command += ["-netdev", netdev, "-device", device]
        return command

    def _enter(self, words: Sequence[str]) -> list[str]:
        clean = ["env", "-i", *(f"{name}={value}" for name, value in ENVIRONMENT.items()), *words]
        ssh = ["ssh", "-q", "-i", str(self._key), "-p", str(_SSH_PORT), "-o", "ConnectTimeout=30"]
        # One connection for all: each of its own would be seconds of cryptography there.
        for option in (
            "ControlMaster=auto",
            f"ControlPath={self._control}",
            "ControlPersist=yes",
            "ServerAliveInterval=30",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
        ):
            ssh += ["-o", option]
        remote = f"cd / && exec {shlex.join(clean)}"
        return [*self._network.inside_fabric, *ssh, "root@127.0.0.1", remote]

    def power_cut(self) -> None:
        assert self._qemu is not None
        self._qemu.kill()
        self._gone()

    def power_off(self) -> None:
        self.call(["systemctl", "poweroff"])
        self._gone()

    def discard(self) -> None:
        if self._qemu is not None:
            self.power_cut()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _gone(self) -> None:
        assert self._qemu is not None
        try:
            self._qemu.wait(GUARD_S)
        except subprocess.TimeoutExpired:
            self._qemu.kill()
            self._qemu.wait()
        self._qemu = None
        end = ["ssh", "-q", "-o", f"ControlPath={self._control}", "-O", "exit", "root@127.0.0.1"]
        subprocess.run(end, check=False, capture_output=True, timeout=GUARD_S)


def _copy_sparse(source: str, target: str) -> None:
    host_call("cp", "--sparse=always", source, target)
