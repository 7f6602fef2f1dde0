"""A client machine and a GPU server on a network, a controller and an agent between them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.machines.guest import PROGRAMS, ROOT, USER, Done, Guest, eventually, measured
from tests.machines.network import Network
from tests.machines.nspawn import Container
from tests.machines.qemu import VirtualMachine

MATRIX = f"{PROGRAMS}/matrixMul"
PASS = "matrixMul: Result = PASS"
URL = "https://server1:7860"
# What users get, or a twentieth of it.
LEASE_S = 180 if os.environ.get("OUTBOARD_TEST_TIMES") == "real" else 9
REQUEST = "-n 1 -p 0.25 --longest-pause 1s --wake-timeout 10s"
_RECORDS = "/run/outboard/agent/sessions"
_STATE = "/var/lib/outboard/controller"
# What this server is told besides what its units say.
_SETTINGS = {
    "controller": f"OUTBOARD_CONTROLLER_LEASE={LEASE_S}s",
    "agent": "OUTBOARD_AGENT_DRIVER=software OUTBOARD_AGENT_ADDRESS=server1:7861",
}


@dataclass
class Site:
    """Machines on cables. `admin` is the environment in which the server's root administers."""

    client: Guest
    server: Container
    network: Network
    admin: str = ""

    def login(self, guest: Guest | None = None) -> Done:
        return (guest or self.client).call(["su", "-l", USER, "-c", MATRIX])

    def computes(self, guest: Guest | None = None) -> bool:
        done = self.login(guest)
        return done.code == 0 and PASS in done.out

    def administer(self, words: str) -> Any:
        """`outboard` as the pool's administrator, on the server; what it prints as JSON."""
        return self.server.json("sh", "-c", f"{self.admin} outboard {words} --json")

    def answers(self) -> bool:
        """Whether the controller does."""
        return self.server.sh(f"{self.admin} outboard nodes").code == 0

    def sessions(self) -> list[str]:
        """What the controller has."""
        return [one["id"] for one in self.administer("sessions")["sessions"]]

    def granted_bytes(self) -> int:
        """What the controller counts as taken of the server's devices."""
        return sum(int(one["granted_bytes"]) for one in self.administer("gpus")["devices"])

    def workers(self) -> dict[int, str]:
        """The server's workers that have a program: whom each runs as, by its pid there."""
        records = self.server.sh(f"cat {_RECORDS}/*.json").out.splitlines()
        pids = [worker["pid"] for line in records for worker in json.loads(line)["workers"]]
        users = self.server.sh(f"ps -o pid=,uid= -p {','.join(map(str, pids))}").out if pids else ""
        pairs = [line.split() for line in users.splitlines()]
        return {int(pid): uid for pid, uid in pairs}

    def hosts(self) -> dict[str, str]:
        """The client machines that the controller knows: name by id."""
        return {str(one["id"]): str(one["name"]) for one in self.administer("hosts")["hosts"]}

    def join_token(self, kind: str, uses: int = 1) -> str:
        """What the administrator gives to a machine."""
        words = f"tokens create --join {kind} --uses {uses}"
        return str(self.administer(words)["token"])


def plan_site(folder: Path) -> Site:
    """Both machines, off, and their network; `equip` makes them a pool and its client.

    The client has a kernel of its own where OUTBOARD_TEST_VM names the archive of its Debian.
    """
    base = os.environ.get("OUTBOARD_TEST_VM")
    taps = ["client2"] if base else []
    network = Network(str(os.getpid() % 100000), ["client2", "server1", "client3"], taps)
    server = Container(folder, "server1", network.namespaces["server1"])
    if base:
        return Site(VirtualMachine(folder, "client2", network, Path(base)), server, network)
    return Site(Container(folder, "client2", network.namespaces["client2"]), server, network)


def the_package(name: str = "outboard") -> Path:
    """The package of this name that was built last."""
    packages = sorted((ROOT / "build/package").glob(f"{name}_*.deb"))
    assert packages, f"there is no package {name}: make package"
    return packages[-1]


def equip(site: Site) -> None:
    """Boot both; what is typed then is what an administrator types, from the packages on."""
    server, client = site.server, site.client
    for guest in (server, client):
        guest.prepare(the_package(), ROOT / "build/programs/static")
    shutil.copy(the_package("outboard-server"), server.root / "var/outboard-server.deb")
    for guest in (server, client):
        measured(f"{guest.name}: the first boot", guest.boot())
        guest.write("/etc/hosts", f"127.0.0.1 localhost {guest.name}\n{site.network.hosts()}")
        guest.install()
    for name, settings in _SETTINGS.items():
        drop_in = f"/etc/systemd/system/outboard-{name}.service.d/10-test.conf"
        server.write(drop_in, f"[Service]\nEnvironment={settings}\n")
    server.sh("systemctl daemon-reload")
    made = server.sh("outboard controller init --name server1")
    assert made.code == 0, made
    site.admin = (
        f"OUTBOARD_POOL={URL} OUTBOARD_TOKEN={made.out.split()[-1]}"
        f" OUTBOARD_AUTHORITY={_STATE}/authority.pem"
    )
    done = server.sh("systemctl enable --now outboard-controller")
    assert done.code == 0, (done, server.sh("journalctl -b --no-pager -u outboard-controller").out)
    eventually("the controller answers", site.answers)
    done = server.sh(f"outboard join {site.join_token('node')} {URL} --name server1")
    assert done.code == 0, done
    done = server.sh("systemctl enable --now outboard-agent")
    assert done.code == 0, (done, server.sh("journalctl -b --no-pager -u outboard-agent").out)
    done = client.sh(f"outboard join {site.join_token('host')} {URL}")
    assert done.code == 0, done
    done = client.sh(f"outboard service install {REQUEST}")
    assert done.code == 0, done
