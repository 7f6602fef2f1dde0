"""A client machine and a GPU server on a network: what is cut, killed and switched off heals.

SPDX-License-Identifier: Apache-2.0

The stories run in this order on the same two machines. The data plane is TLS, as delivered.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.machines.guest import GUARD_S, eventually, measured
from tests.machines.running import Running
from tests.machines.site import LEASE_S, PASS, Site

# A peer that is silent is noticed after 40 s (native/transport), then the lease runs.
_SILENCE_S = 40 + LEASE_S


@pytest.fixture(autouse=True)
def plugged(site: Site) -> Iterator[None]:
    """A story that fails leaves the next one a cable."""
    yield
    site.network.mend("client2")


def test_a_machine_without_a_gpu_computes_on_the_server(site: Site) -> None:
    status = site.client.state("active")
    assert status["devices"][0]["node"] == "server1"
    done = site.login()
    assert PASS in done.out, done
    workers = ["pgrep", "-f", "/usr/lib/outboard/bin/outboard-worker"]
    with Running(site.client) as program:
        assert program.add() == "ADDED 1"
        assert site.server.call(workers).out
        assert not site.client.call(workers).out
        assert program.finish() == "PASS"


def test_what_crosses_the_network_is_encrypted(site: Site) -> None:
    nodes = site.administer("nodes")["nodes"]
    assert [node["tls"] for node in nodes] == ["psk"]


def test_the_machines_token_is_roots_alone(site: Site) -> None:
    done = site.client.call(["su", "user1", "-c", "grep -rs ob_ /etc/outboard /run/outboard"])
    assert done.out == ""


def test_from_power_on_to_the_first_right_answer_over_the_network(site: Site) -> None:
    site.client.power_off()
    started = time.monotonic()
    site.client.boot()
    eventually("a login shell computes", site.computes)
    measured("from power-on to the first right answer", time.monotonic() - started)


def test_a_program_runs_through_a_restart_of_the_service(site: Site) -> None:
    site.client.state("active")
    before = site.sessions()
    with Running(site.client) as program:
        assert program.add() == "ADDED 1"
        assert site.client.sh("systemctl restart outboard@default").code == 0
        site.client.state("active")
        assert program.add() == "ADDED 2"
        assert program.finish() == "PASS"
    assert site.sessions() == before


@pytest.mark.parametrize("unit", ["outboard-agent", "outboard-controller"])
def test_a_program_runs_through_the_death_of_a_server_process(site: Site, unit: str) -> None:
    site.client.state("active")
    main = f"systemctl show -p MainPID --value {unit}"
    with Running(site.client) as program:
        assert program.add() == "ADDED 1"
        before = site.server.sh(main).out
        assert site.server.sh(f"systemctl kill --kill-whom=main -s KILL {unit}").code == 0
        eventually(f"{unit} is another", lambda: site.server.sh(main).out not in (before, "0\n"))
        assert program.add() == "ADDED 2"
        eventually("a login shell computes again", site.computes)
        assert program.finish() == "PASS"
    eventually("the controller answers", site.answers)
    site.client.state("active")


def test_a_cable_that_was_out_for_less_than_the_lease_is_not_noticed(site: Site) -> None:
    site.client.state("active")
    before = site.sessions()
    with Running(site.client) as program:
        assert program.add() == "ADDED 1"
        site.network.cut("client2")
        time.sleep(LEASE_S / 6)  # how long it is out, not a wait for something
        site.network.mend("client2")
        assert program.add() == "ADDED 2"
        assert program.finish() == "PASS"
    site.client.state("active")
    assert site.sessions() == before


def test_a_cable_that_was_out_for_longer_than_the_lease_needs_no_step_by_hand(site: Site) -> None:
    site.client.state("active")
    (before,) = site.sessions()
    with Running(site.client) as program:
        site.network.cut("client2")
        line = site.client.state("lost", LEASE_S + GUARD_S)["line"]
        assert line.startswith("lost the GPUs: "), line
        assert "has no GPU: " in site.login().err
        eventually("the session is over", lambda: not site.sessions(), _SILENCE_S + 2 * GUARD_S)
        assert site.granted_bytes() == 0
        assert program.add().startswith("ERROR ")
    site.network.mend("client2")
    eventually("a login shell computes again", site.computes)
    site.client.state("active")
    assert before not in site.sessions()


def test_a_client_without_power_leaves_nothing_behind(site: Site) -> None:
    site.client.state("active")
    (before,) = site.sessions()
    site.network.cut("client2")  # no farewell of its kernel reaches the server
    site.client.power_cut()
    eventually("its lease is over", lambda: before not in site.sessions(), _SILENCE_S + GUARD_S)
    assert site.granted_bytes() == 0
    eventually("its workers are gone", lambda: not site.workers())
    site.network.mend("client2")
    site.client.boot()
    eventually("a login shell computes", site.computes)
    assert len(site.sessions()) == 1


def test_a_server_without_power_is_used_again_when_it_is_back(site: Site) -> None:
    site.client.state("active")
    with Running(site.client) as program:
        site.server.power_cut()
        assert program.add().startswith("ERROR ")
    refused = site.login()
    assert refused.code != 0
    site.server.boot()
    eventually("the controller answers", site.answers)
    eventually("a login shell computes again", site.computes)
    site.client.state("active")
    eventually("there is one session", lambda: len(site.sessions()) == 1)


def test_a_session_that_an_administrator_ends_stays_ended(site: Site) -> None:
    site.client.state("active")
    (before,) = site.sessions()
    site.administer(f"sessions end {before} --reason maintenance")
    line = site.client.state("ended")["line"]
    assert line == f"ended: session {before} was ended by an administrator: maintenance"
    assert "ended by an administrator: maintenance" in site.login().err
    assert site.sessions() == []
    assert site.client.sh("systemctl reload outboard@default").code == 0
    site.client.state("active")
    assert site.computes()


def test_a_stop_releases_at_the_controller(site: Site) -> None:
    assert site.client.sh("systemctl stop outboard@default").code == 0
    eventually("the controller has no session", lambda: site.sessions() == [])
    assert site.granted_bytes() == 0
    assert site.client.sh("systemctl start outboard@default").code == 0
    site.client.state("active")
