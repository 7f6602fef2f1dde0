"""Hosts made of network namespaces, on one bridge: for tests that pull a cable.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path


class Hosts:
    """Namespaces with an address each on a network of their own; `close` takes all of it away."""

    def __init__(self, names: Sequence[str]) -> None:
        self._mark = f"ob{os.getpid() % 100000}"
        self._namespaces: dict[str, str] = {}
        self.addresses: dict[str, str] = {}
        try:
            self._ip("link", "add", self._mark, "type", "bridge")
            self._ip("link", "set", self._mark, "up")
            for number, name in enumerate(names, 1):
                self._add(name, number)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def possible() -> bool:
        """Whether this user may make network namespaces here."""
        try:
            done = subprocess.run(
                ["unshare", "--net", "ip", "link", "add", "type", "bridge"],
                capture_output=True,
                check=False,
            )
        except OSError:
            return False
        return os.geteuid() == 0 and done.returncode == 0

    def machine(self, host: str, words: Sequence[str | Path]) -> list[str]:
        """The words of a command, on a host."""
        return ["ip", "netns", "exec", self._namespaces[host], *(str(word) for word in words)]

    def pull(self, host: str) -> None:
        """Pull a host's cable."""
        self._ip("link", "set", self._port(host), "down")

    def plug(self, host: str) -> None:
        """Put it back."""
        self._ip("link", "set", self._port(host), "up")

    def close(self) -> None:
        for namespace in self._namespaces.values():
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self._mark], capture_output=True, check=False)

    def _add(self, name: str, number: int) -> None:
        namespace = f"{self._mark}-{name}"
        self._ip("netns", "add", namespace)
        self._namespaces[name] = namespace
        port, address = self._port(name), f"10.231.7.{number}"
        self._ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        self._ip("link", "set", port, "master", self._mark, "up")
        inside = ["-n", namespace]
        self._ip(*inside, "addr", "add", f"{address}/24", "dev", "eth0")
        self._ip(*inside, "link", "set", "eth0", "up")
        self._ip(*inside, "link", "set", "lo", "up")
        self.addresses[name] = address

    def _port(self, name: str) -> str:
        return f"{self._mark}{list(self._namespaces).index(name)}"

    @staticmethod
    def _ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
