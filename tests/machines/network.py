"""A network of machines: a bridge in a namespace of its own, a cable to each machine's namespace.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

PREFIX = "10.177.0"


class Network:
    """Namespaces and cables. The names are this process's own, and go with `close`.

    A machine of `taps` is none of namespaces: its cable ends in a tap, in the bridge's namespace.
    """

    def __init__(self, tag: str, machines: Sequence[str], taps: Sequence[str] = ()) -> None:
        self._fabric = f"obf{tag}"
        self.namespaces = {name: f"ob{tag}-{name}" for name in machines if name not in taps}
        self.addresses = {name: f"{PREFIX}.{at + 1}" for at, name in enumerate(machines)}
        self.ports = {name: f"p{at}-{tag}" for at, name in enumerate(machines)}
        _ip("netns", "add", self._fabric)
        self._in_fabric("link", "add", "br0", "type", "bridge")
        self._in_fabric("link", "set", "br0", "up")
        self._in_fabric("link", "set", "lo", "up")
        for name in self.namespaces:
            self._connect(name)
        for name in taps:
            self._in_fabric("tuntap", "add", "dev", self.ports[name], "mode", "tap")
            self._plug(name)

    @property
    def inside_fabric(self) -> list[str]:
        """What runs a command where the bridge is."""
        return ["ip", "netns", "exec", self._fabric]

    def hosts(self) -> str:
        """Lines for /etc/hosts."""
        return "".join(f"{address} {name}\n" for name, address in self.addresses.items())

    def cut(self, name: str) -> None:
        """Pull a machine's cable."""
        self._in_fabric("link", "set", self.ports[name], "down")

    def mend(self, name: str) -> None:
        """Plug it in again."""
        self._in_fabric("link", "set", self.ports[name], "up")

    def close(self) -> None:
        for namespace in (*self.namespaces.values(), self._fabric):
            subprocess.run(["ip", "netns", "del", namespace], check=False)

    def _connect(self, name: str) -> None:
        namespace, port = self.namespaces[name], self.ports[name]
        _ip("netns", "add", namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        peer = ("peer", "name", port, "netns", self._fabric)
        _ip("link", "add", "host0", "netns", namespace, "type", "veth", *peer)
        _ip("-n", namespace, "addr", "add", f"{self.addresses[name]}/24", "dev", "host0")
        _ip("-n", namespace, "link", "set", "host0", "up")
        self._plug(name)

    def _plug(self, name: str) -> None:
        self._in_fabric("link", "set", self.ports[name], "master", "br0")
        self.mend(name)

    def _in_fabric(self, *words: str) -> None:
        _ip("-n", self._fabric, *words)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
