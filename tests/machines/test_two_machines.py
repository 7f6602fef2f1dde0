"""A client machine and a GPU server on a network, a controller and an agent between them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.machines.guest import PROGRAMS, ROOT, USER, Done, Guest, eventually
from tests.machines.network import Network

MATRIX = f"{PROGRAMS}/matrixMul"
PASS = "matrixMul: Result = PASS"
URL = "https://server1:7860"
# The controller's libraries; the client machine has the distribution's Python alone.
SERVER_LIBRARIES = "/opt/server-libraries"

_UNIT = """\
[Unit]
Description={what}
[Service]
Environment=PYTHONPATH=/usr/lib/outboard/python:/opt/server-libraries HOME=/root
ExecStart={command}
Restart=always
RestartSec=500ms
StateDirectory=outboard
[Install]
WantedBy=multi-user.target
"""
_CONTROLLER = "/usr/bin/python3 -s -m outboard controller serve"
_AGENT = (
    "/usr/bin/python3 -s -m outboard agent --driver software --address server1:7861"
    " --plaintext-data-plane"
)
_JOIN_TOKEN = """\
import sys
from outboard.client import remote
from outboard.model.token import parse_token
token = parse_token(sys.argv[1])
pem = remote.fetch_authority("{url}", token.authority, "test")
connection = remote.connect("{url}", pem, str(token), "test")
body = {{"subject_kind": "join", "subject": "machines", "scopes": ["enrol", *sys.argv[2:]]}}
print(connection.call("POST", "/v1/tokens", body)["token"])
"""


@dataclass
class Site:
    """Two machines on a cable."""

    client: Guest
    server: Guest
    network: Network

    def login(self) -> Done:
        return self.client.call(["su", "-l", USER, "-c", MATRIX])

    def computes(self) -> bool:
        done = self.login()
        return done.code == 0 and PASS in done.out


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    packages = sorted((ROOT / "build/package").glob("outboard_*.deb"))
    assert packages, "there is no package: make package"
    folder = Path(tempfile.mkdtemp(prefix="outboard-machines-", dir="/dev/shm"))
    network = Network(str(os.getpid() % 100000), ["client2", "server1"])
    libraries = f"{sysconfig.get_path('purelib')}:{SERVER_LIBRARIES}"
    client = Guest(folder, "client2", network.namespaces["client2"])
    server = Guest(folder, "server1", network.namespaces["server1"], [libraries])
    try:
        for guest in (server, client):
            guest.prepare(packages[-1], ROOT / "build/programs/static")
            with (guest.root / "etc/hosts").open("a", encoding="utf-8") as hosts:
                hosts.write(network.hosts())
            guest.boot()
            done = guest.call(["dpkg", "-i", "/var/outboard.deb"])
            assert done.code == 0, done
        _make_pool(server, client)
        yield Site(client, server, network)
    finally:
        client.discard()
        server.discard()
        network.close()
        folder.rmdir()


def _make_pool(server: Guest, client: Guest) -> None:
    path = f"PYTHONPATH=/usr/lib/outboard/python:{SERVER_LIBRARIES} HOME=/root"
    outboard = f"{path} /usr/bin/python3 -s -m outboard"
    for name, command in (("controller", _CONTROLLER), ("agent", _AGENT)):
        unit = server.root / f"etc/systemd/system/outboard-{name}.service"
        unit.write_text(_UNIT.format(what=name, command=command), encoding="utf-8")
    made = server.sh(
        f"{outboard} controller init --name server1 --state /var/lib/outboard/controller"
    )
    assert made.code == 0, made
    token = made.out.split()[-1]
    (server.root / "var/join.py").write_text(_JOIN_TOKEN.format(url=URL), encoding="utf-8")
    server.sh("systemctl daemon-reload; systemctl enable --now outboard-controller")

    def join_token(scope: str) -> str:
        done = server.sh(f"{path} /usr/bin/python3 -s /var/join.py {token} {scope}")
        return done.out.strip() if done.code == 0 else ""

    node = eventually("the controller answers", lambda: join_token("agent"))
    done = server.sh(f"{outboard} join {node} {URL} --name server1")
    assert done.code == 0, done
    server.sh("systemctl enable --now outboard-agent")
    # What the client machine types is what its administrator types, and no more.
    done = client.sh(f"outboard join {join_token('use service')} {URL}")
    assert done.code == 0, done
    request = "-n 1 -p 0.25 --longest-pause 1s --wake-timeout 10s"
    done = client.sh(f"outboard service install {request}")
    assert done.code == 0, done


def test_a_machine_without_a_gpu_computes_on_the_server(site: Site) -> None:
    status = site.client.state("active")
    assert status["devices"][0]["node"] == "server1"
    done = site.login()
    assert PASS in done.out, done
    workers = ["pgrep", "-f", "/usr/lib/outboard/bin/outboard-worker"]
    assert site.server.call(workers).out
    assert not site.client.call(workers).out


def test_the_machines_token_is_roots_alone(site: Site) -> None:
    done = site.client.call(["su", USER, "-c", "grep -rs ob_ /etc/outboard /run/outboard"])
    assert done.out == ""


def test_from_power_on_to_the_first_right_answer_over_the_network(site: Site) -> None:
    site.client.power_off()
    started = time.monotonic()
    site.client.boot()
    eventually("a login shell computes", site.computes)
    print(f"from power-on to the first right answer: {time.monotonic() - started:.2f} s")


def test_a_cable_that_was_out_needs_no_step_by_hand(site: Site) -> None:
    site.network.cut("client2")
    assert not site.computes()
    site.network.mend("client2")
    eventually("a login shell computes again", site.computes)


@pytest.mark.parametrize("killed", ["outboard-agent", "outboard-controller"])
def test_a_killed_server_process_needs_no_step_by_hand(site: Site, killed: str) -> None:
    assert site.server.sh(f"systemctl kill -s KILL {killed}").code == 0
    eventually("a login shell computes again", site.computes)
    site.client.state("active")


def test_a_stop_releases_at_the_controller(site: Site) -> None:
    assert site.client.sh("systemctl stop outboard@default").code == 0
    sessions = eventually(
        "the controller has no session",
        lambda: site.client.sh("outboard sessions").out == "no sessions\n",
    )
    assert sessions
