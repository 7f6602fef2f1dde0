"""Checks of client, controller and GPU server against a pool that runs, each made to fail once.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outboard import __version__
from outboard.doctor import controller, network, server
from outboard.doctor.contact import Reach
from outboard.doctor.place import Place
from outboard.doctor.registry import Finding, Look, of_each
from outboard.errors import OutboardError, PoolBusy, PoolError, Unauthenticated
from outboard.ledger import subjects, tokens
from outboard.ledger.transaction import Transaction
from outboard.model.identity import read_identity, write_identity
from outboard.settings import Settings
from tests.unit.conftest import HANG_GUARD_S
from tests.unit.controller.site import Site, free_port, new_site

DAY_US = 86_400_000_000


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with new_site() as made:
        made.add_agent("gpu1")
        yield made


def token_of(site: Site, lifetime_us: int | None = None) -> str:
    def work(tx: Transaction) -> str:
        subjects.ensure_user(tx, "ann")
        return tokens.create_token(tx, ("user", "ann"), ["use"], lifetime_us=lifetime_us)

    return site.parts.database.write(work)


def place_of(site: Site, **values: str) -> Place:
    told = {
        "pool": site.url,
        "token": token_of(site),
        "authority": site.installation.path("authority.pem"),
        **values,
    }
    return Place(Settings([("a test", told)]), str(site.folder / "ctl"), str(site.folder / "gpu1"))


@pytest.fixture
def place(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OUTBOARD_RUNTIME_DIR", str(site.folder / "run-doctor"))
    made = place_of(site)
    yield made
    made.close()


def all_of(look: Look, place: Place) -> list[Finding]:
    found = look(place)
    return found if isinstance(found, list) else [found]


@dataclasses.dataclass
class Contact:
    """A controller that answers as a test wants."""

    name: str = "ctl"
    took_s: float = 0.001
    apart_s: float = 0.0
    size: int = 1500

    def ask(self) -> tuple[float, float]:
        return self.apart_s, self.took_s

    def mtu(self) -> int:
        return self.size

    def close(self) -> None:
        pass


def reached(*contacts: Contact) -> Any:
    made = Reach([], "")
    made.contacts = list(contacts)  # type: ignore[arg-type]
    return made


def node(name: str, port: int, **values: Any) -> dict[str, Any]:
    told = {"name": name, "address": f"127.0.0.1:{port}", "healthy": True, "release": __version__}
    return {**told, **values}


def test_what_a_machine_is_to_a_pool_it_finds_out(place: Place, tmp_path: Path) -> None:
    assert place.roles == {"client", "controller", "agent"}
    assert Place(Settings([]), str(tmp_path), str(tmp_path)).roles == {"client"}


def test_a_client_of_a_pool_that_works_passes(place: Place) -> None:
    looks = (network.pool, network.token, network.authority, network.shown, network.clock)
    looks += (network.releases, network.mtu)
    found = [one for look in looks for one in all_of(look, place)]
    assert [one.state for one in found] == ["pass"] * len(looks), found


def test_without_a_configured_pool_there_is_nothing_to_reach(place: Place) -> None:
    alone = Place(Settings([]), "/nonexistent", "/nonexistent")
    assert network.pool(alone).state == "pass"
    looks = (network.token, network.authority, network.shown, network.clock, network.releases)
    looks += (network.protocol, network.round_trip, network.mtu, network.data_ports)
    looks += (network.bandwidth,)
    assert {one.state for look in looks for one in all_of(look, alone)} == {"skip"}
    assert place.remote


def test_a_controller_that_does_not_answer_fails(site: Site) -> None:
    silent = place_of(site, pool=f"https://127.0.0.1:{free_port()}")
    (found,) = all_of(network.pool, silent)
    assert (found.state, "Connection refused" in found.text) == ("fail", True)


def test_a_certificate_of_somebody_else_fails(site: Site) -> None:
    wrong = place_of(site, pool=site.url.replace("127.0.0.1", "localhost"))
    (found,) = all_of(network.pool, wrong)
    assert (found.state, "its certificate is refused" in found.text) == ("fail", True)


def test_each_of_several_controllers_is_looked_at(place: Place, site: Site) -> None:
    silent = f"https://127.0.0.1:{free_port()}"
    several = place_of(site, pool=f"{silent},{site.url}")
    found = all_of(network.pool, several)
    assert [(one.state, site.url in one.text) for one in found] == [("pass", True), ("warn", False)]
    assert silent.rpartition(":")[2] in found[1].text
    assert network.releases(several).text.startswith("2 controllers and servers have")
    several.close()
    place.__dict__["reach"] = reached(Contact("a"), Contact("b", apart_s=301, took_s=1, size=1280))
    for look, states in (
        (network.clock, ["pass", "fail"]),
        (network.round_trip, ["pass", "warn"]),
        (network.mtu, ["pass", "warn"]),
    ):
        both = look(place)
        assert [one.state for one in both] == states
        assert [name in one.text for name, one in zip("ab", both, strict=True)] == [True, True]


def test_one_controller_that_fails_does_not_hide_another(place: Place) -> None:
    def ask(contact: Contact) -> Finding:
        if contact.name == "a":
            raise PoolError("a is no controller")
        return Finding("pass", contact.name)

    found = of_each(reached(Contact("a"), Contact("b")), ask)  # type: ignore[arg-type]
    assert [(one.state, one.text) for one in found] == [
        ("fail", "a is no controller"),
        ("pass", "b"),
    ]


def test_a_token_that_ends_soon_is_told_and_an_unknown_one_fails(site: Site) -> None:
    soon = place_of(site, token=token_of(site, DAY_US))
    found = network.token(soon)
    assert (found.state, "tokens create --user ann" in found.fix) == ("warn", True)
    soon.close()
    unknown = place_of(site, token="ob_" + "0" * 16 + "_" + "0" * 64 + "_" + "0" * 16)
    with pytest.raises(Unauthenticated):
        network.token(unknown)
    unknown.close()


@pytest.mark.parametrize(("days", "state"), [(-1, "fail"), (10, "warn"), (90, "pass")])
def test_certificates_are_told_before_they_end(days: int, state: str) -> None:
    found = network.certificate("it", time.time() + days * 86400, "here, ")
    assert (found.state, bool(found.fix)) == (state, state != "pass")


@pytest.mark.parametrize(("apart_s", "state"), [(-299, "warn"), (301, "fail"), (2, "pass")])
def test_clocks_that_differ_are_told(place: Place, apart_s: float, state: str) -> None:
    place.__dict__["reach"] = reached(Contact(apart_s=apart_s))
    assert [one.state for one in network.clock(place)] == [state]


def test_other_releases_and_protocols_are_told(place: Place, site: Site) -> None:
    shim = site.folder / "native/lib/shim/libcuda.so.1"
    shim.write_bytes(b"\0" + b"a" * 64 + b"\0")
    try:
        place.__dict__["nodes"] = [node("gpu1", 1, protocol="a" * 64)]
        assert (network.releases(place).state, network.protocol(place).state) == ("pass", "pass")
        place.__dict__["nodes"] = [node("gpu1", 1, protocol="b" * 64, release="0.0.1")]
        assert "gpu1 0.0.1" in network.releases(place).text
        assert (network.releases(place).state, network.protocol(place).state) == ("warn", "fail")
    finally:
        shim.write_bytes(b"")


def test_a_node_says_its_release(place: Place) -> None:
    assert [one["release"] for one in place.nodes] == [__version__]


@pytest.mark.parametrize(
    ("look", "contact"),
    [(network.round_trip, Contact(took_s=0.2)), (network.mtu, Contact(size=1280))],
)
def test_a_slow_or_narrow_way_is_told(place: Place, look: Look, contact: Contact) -> None:
    place.__dict__["reach"] = reached(Contact())
    assert [one.state for one in all_of(look, place)] == ["pass"]
    place.__dict__["reach"] = reached(contact)
    assert [one.state for one in all_of(look, place)] == ["warn"]


def test_data_ports_that_are_not_reached_are_told(place: Place) -> None:
    place.__dict__["nodes"] = []
    assert network.data_ports(place).state == "warn"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        well = node("gpu1", listener.getsockname()[1])
        place.__dict__["nodes"] = [well]
        assert "1 servers are reached" in network.data_ports(place).text
        place.__dict__["nodes"] = [well, node("gpu2", free_port())]
        found = network.data_ports(place)
        assert (found.state, "on gpu2: outboard doctor" in found.fix) == ("warn", True)
    place.__dict__["nodes"] = [node("gpu2", free_port())]
    assert network.data_ports(place).state == "fail"
    place.__dict__["nodes"] = [node("gpu2", 1, healthy=False)]
    assert network.data_ports(place).state == "fail"


def test_bandwidth_is_what_a_program_measures(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"node": "gpu1", "to_node_bytes_per_s": 1 << 30, "round_trip_p50_us": 20.0}

    def measured(from_node_bytes_per_s: int) -> Callable[..., dict[str, Any]]:
        return lambda *_: {**told, "from_node_bytes_per_s": from_node_bytes_per_s}

    def refused(error: OutboardError) -> Callable[..., dict[str, Any]]:
        def netperf(*_: object) -> dict[str, Any]:
            raise error

        return netperf

    monkeypatch.setattr(network, "netperf", measured(1 << 30))
    assert network.bandwidth(place).state == "pass"
    monkeypatch.setattr(network, "netperf", measured(1 << 20))
    assert network.bandwidth(place).state == "warn"
    monkeypatch.setattr(network, "netperf", refused(PoolBusy("the pool is busy")))
    assert network.bandwidth(place).state == "skip"
    monkeypatch.setattr(network, "netperf", refused(PoolError("it failed")))
    with pytest.raises(PoolError):
        network.bandwidth(place)
    place.quick = True
    assert network.bandwidth(place).text == "--quick"


def test_a_controller_that_works_passes(place: Place) -> None:
    looks = (controller.files, controller.answers, controller.shown, controller.authority)
    found = [look(place) for look in (*looks, controller.ledger)]
    assert [one.state for one in found] == ["pass"] * len(found), found


def test_what_is_wrong_with_a_controller_is_told(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "ctl"
    shutil.copytree(site.folder / "ctl", folder)
    place = Place(Settings([]), str(folder), "/nonexistent")
    path = folder / "controller.json"
    told = json.loads(path.read_text())
    told |= {"listen": f"0.0.0.0:{free_port()}", "database": f"sqlite:///{folder}/missing.sqlite"}
    path.write_text(json.dumps(told))
    assert (controller.answers(place).state, controller.ledger(place).state) == ("warn", "fail")
    (folder / "pool.key").chmod(0o644)
    assert controller.files(place).fix == f"chmod 600 {folder}/pool.key"
    (folder / "pool.key").unlink()
    with pytest.raises(FileNotFoundError):
        controller.files(place)
    path.write_text("{}")
    with pytest.raises(OutboardError, match="cannot be read"):
        controller.files(place)


def test_a_gpu_server_that_works_passes(place: Place, site: Site) -> None:
    looks = (server.identity, server.agents_controller, server.agents_authority)
    found = [one for look in looks for one in all_of(look, place)]
    assert [one.state for one in found] == ["pass"] * len(looks), found
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listen = f"0.0.0.0:{listener.getsockname()[1]}"
        assert server.agents_port(place_of(site, **{"agent.listen": listen})).state == "pass"
    software = place_of(site, **{"agent.driver": "software"})
    assert "Fake GPU" in server.driver(software).text
    assert server.errors_of_gpus(software).state == "skip"


def test_what_is_wrong_with_a_gpu_server_is_told(place: Place, site: Site, tmp_path: Path) -> None:
    listen = {"agent.listen": f"0.0.0.0:{free_port()}"}
    assert server.agents_port(place_of(site, **listen)).state == "warn"
    missing = place_of(site, **{"agent.driver": "/nonexistent/libcuda.so.1"})
    with pytest.raises(OutboardError, match="does not exist"):
        server.driver(missing)
    identity = read_identity(str(site.folder / "gpu1"))
    write_identity(str(tmp_path), dataclasses.replace(identity, token=token_of(site)))
    place.agent_state = str(tmp_path)
    (found,) = server.agents_controller(place)
    assert (found.state, "this token is not of the node gpu1" in found.text) == ("fail", True)
    del place.__dict__["identity"]
    os.chmod(tmp_path / "identity.json", 0o644)
    with pytest.raises(OutboardError, match="can be read by others"):
        server.identity(place)


def test_gpu_errors_are_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"software": False, "driver": "/usr/lib/libcuda.so.1"}
    monkeypatch.setattr(server, "examined", lambda _place: told)
    assert server.errors_of_gpus(place).state == "warn"  # there is no NVML here
    monkeypatch.setattr(server, "Nvml", lambda _path: None)
    for answer, state in (
        ((["bad"], [], 1), "fail"),
        (([], ["hot"], 1), "warn"),
        (([], [], 1), "pass"),
    ):
        monkeypatch.setattr(server, "gpu_errors", lambda _nvml, answer=answer: answer)
        assert server.errors_of_gpus(place).state == state


def run_doctor(site: Site, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "outboard", "doctor", *words],
        env={**site.environment, "OUTBOARD_RUNTIME_DIR": str(site.folder / "run-doctor"), **more},
        capture_output=True,
        text=True,
        timeout=HANG_GUARD_S,
        check=False,
    )


def test_the_command_exits_with_1_if_something_failed(site: Site) -> None:
    state = ["--controller-state", str(site.folder / "ctl")]
    state += ["--agent-state", str(site.folder / "gpu1")]
    well = run_doctor(site, "--json", *state, OUTBOARD_AGENT_DRIVER="software")
    told = json.loads(well.stdout)
    assert (well.returncode, told["roles"]) == (0, ["agent", "client", "controller"]), told
    assert {one["check"] for one in told["checks"]} >= {"disk", "ledger", "identity", "driver"}
    broken = run_doctor(
        site,
        OUTBOARD_POOL=f"https://127.0.0.1:{free_port()}",
        OUTBOARD_TOKEN="x",
        OUTBOARD_AUTHORITY=site.installation.path("authority.pem"),
    )
    assert broken.returncode == 1, broken.stdout
    assert "FAIL  pool: 127.0.0.1 port" in broken.stdout
    assert "skip  bandwidth: not looked at, since data ports failed" in broken.stdout
    assert broken.stdout.splitlines()[-1].endswith("1 fail")


def test_a_folder_that_is_none_is_said(site: Site) -> None:
    done = run_doctor(site, "--agent-state", "/nonexistent")
    assert (done.returncode, "there is no agent in this folder" in done.stderr) == (125, True)
