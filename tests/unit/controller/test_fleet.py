"""Controller and agents together: who may join, what ends, and when its bytes are free.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from outboard.client import remote
from outboard.errors import Forbidden, Unauthenticated
from outboard.ledger import nodes
from outboard.ledger.accounting import processes
from tests.unit.conftest import eventually
from tests.unit.controller.site import Site, new_site
from tests.unit.fakes import program
from tests.unit.fakes.connected import Program

MIB = 1 << 20


@pytest.fixture
def site() -> Iterator[Site]:
    with new_site() as made:
        yield made


def test_a_joined_server_offers_its_devices_and_its_sessions_work(site: Site) -> None:
    site.add_agent("gpu1")
    granted = site.grant([("gpu1", 0, 300 * MIB)])
    running = Program(site.session(granted))
    assert running.say(b"ping") == b"pong\n"
    assert running.welcome["claim"]["devices"][0]["share_bytes"] == 300 * MIB
    fleet = site.parts.fleet
    eventually(lambda: fleet.held_bytes(granted.session) == [4 * MIB], "what is held is known")
    running.close()


def test_what_programs_did_is_in_the_accounts_also_after_their_end(site: Site) -> None:
    site.add_agent("gpu1")
    granted = site.grant([("gpu1", 0, 300 * MIB)])
    running = Program(site.session(granted))
    for line in (b"ping", b"take 1000000", b"ping"):
        running.say(line)

    def used() -> list[Any]:
        site.parts.fleet.flush()
        return [
            (row["session"], row["pid"], row["uid"], row["program"], row["calls"], row["busy_us"])
            for row in site.parts.database.read(lambda tx: processes(tx, 0, tx.now_us))
        ]

    did = (granted.session, 4711, 1000, "fake")
    eventually(lambda: used() == [(*did, 3, 3000)], "what it did so far is written down")
    running.say(b"ping")
    running.close()

    def last() -> Any:
        (row,) = site.parts.database.read(lambda tx: processes(tx, 0, tx.now_us))
        return row

    eventually(lambda: last()["ended_us"] is not None, "its end is known")
    row = last()
    assert (row["calls"], row["busy_us"], row["peak_bytes"]) == (4, 4000, 1000000 + 4 * MIB)
    assert 0 < row["started_us"] <= row["ended_us"]


def test_the_bytes_are_free_once_the_agent_says_so(site: Site) -> None:
    site.add_agent("gpu1")
    granted = site.grant([("gpu1", 0, 300 * MIB)])
    running = Program(site.session(granted))
    site.end(granted, "released")
    assert running.hear() == b"ended: released\n"
    eventually(lambda: site.state(granted) == "ended", "the allocation is over")
    assert site.granted_bytes("gpu1") == [0]
    running.close()


def test_nothing_is_free_while_its_agent_is_away(site: Site) -> None:
    agent = site.add_agent("gpu1")
    granted = site.grant([("gpu1", 0, 300 * MIB)])
    agent.end(signal.SIGKILL)
    site.end(granted, "released")
    assert (site.state(granted), site.granted_bytes("gpu1")) == ("ending", [300 * MIB])
    agent.start()
    eventually(lambda: site.state(granted) == "ended", "the allocation is over")
    with program.connect(site.session(granted), program.preface(site.session(granted))) as late:
        assert b'"code": "ended"' in late.recv(4096)


def test_a_session_of_two_servers_has_a_grant_for_each(site: Site) -> None:
    site.add_agent("gpu1")
    site.add_agent("gpu2")
    granted = site.grant([("gpu1", 0, 300 * MIB), ("gpu2", 0, 200 * MIB)])
    content = site.session(granted)
    assert [node["name"] for node in content["nodes"]] == ["gpu1", "gpu2"]
    assert [device["node"] for device in content["devices"]] == [0, 1]
    assert content["grant"] == content["nodes"][0]["grant"] != content["nodes"][1]["grant"]
    programs = [Program({**content, **node, "nodes": [node]}) for node in content["nodes"]]
    shares = [one.welcome["claim"]["devices"][0]["share_bytes"] for one in programs]
    assert shares == [300 * MIB, 200 * MIB]
    crossed = {**content, "grant": content["nodes"][0]["grant"], "nodes": content["nodes"][1:]}
    with program.connect(crossed, program.preface(crossed)) as wrong:
        assert b"the grant is for gpu1, this is gpu2" in wrong.recv(4096)
    site.end(granted, "released")
    assert [one.hear() for one in programs] == [b"ended: released\n"] * 2
    eventually(lambda: site.state(granted) == "ended", "the allocation is over")
    for one in programs:
        one.close()


def test_a_restarted_controller_finds_its_sessions(site: Site) -> None:
    site.add_agent("gpu1")
    granted = site.grant([("gpu1", 0, 300 * MIB)])
    running = Program(site.session(granted))
    site.stop()
    assert running.say(b"ping") == b"pong\n"
    site.start()
    fleet = site.parts.fleet
    eventually(lambda: fleet.held_bytes(granted.session) == [4 * MIB], "it has been reported again")
    assert (running.say(b"ping"), site.state(granted)) == (b"pong\n", "active")
    running.close()


def test_programs_renew_their_lease_through_their_agent(site: Site) -> None:
    site.add_agent("gpu1")
    granted = site.grant([("gpu1", 0, 300 * MIB)])

    def programs() -> int:
        from outboard.ledger.schema import leases

        site.parts.fleet.flush()
        return int(
            site.parts.database.read(
                lambda tx: tx.connection.execute(leases.select()).one()
            ).programs
        )

    running = Program(site.session(granted))
    eventually(lambda: programs() == 1, "the ledger knows of the program")
    running.close()
    eventually(lambda: programs() == 0, "the ledger knows of its end")


def test_a_removed_server_is_told_and_ends_what_it_has(site: Site) -> None:
    agent = site.add_agent("gpu1")
    site.parts.database.write(lambda tx: nodes.remove_node(tx, "gpu1"))
    eventually(lambda: "was removed from this pool" in agent.log(), "the agent was told")


def test_a_join_token_is_needed_and_used_up(site: Site) -> None:
    once = site.token("enrol", "agent", uses=1)
    assert site.join("gpu1", once).returncode == 0
    again = site.join("gpu2", once)
    assert (again.returncode, "unknown, expired or revoked" in again.stderr) == (125, True)
    other = site.join("gpu3", site.token("use"))
    assert "cannot enrol a machine" in other.stderr
    assert not (site.folder / "gpu3").exists()


def test_a_name_is_its_machines_until_it_is_removed(site: Site) -> None:
    assert site.join("gpu1", site.token("enrol", "agent")).returncode == 0
    body = {"token": site.token("enrol", "agent"), "name": "gpu1", "machine": "another"}
    with pytest.raises(Forbidden, match="gpu1 is another machine of this pool"):
        site.parts.fleet.enrol(body)
    identity = json.loads((site.folder / "gpu1/identity.json").read_text())
    assert site.join("gpu1", site.token("enrol", "agent")).returncode == 0
    anew = json.loads((site.folder / "gpu1/identity.json").read_text())
    assert identity["node_key"] != anew["node_key"]
    connection = remote.connect(site.url, identity["authority_pem"], identity["token"], "test")
    with pytest.raises(Unauthenticated):
        connection.call("POST", "/v1/nodes/gpu1/report", {})
    connection.close()


def test_a_node_speaks_for_itself_alone(site: Site) -> None:
    for name in ("gpu1", "gpu2"):
        assert site.join(name, site.token("enrol", "agent")).returncode == 0
    identity = json.loads((site.folder / "gpu1/identity.json").read_text())
    connection = remote.connect(site.url, identity["authority_pem"], identity["token"], "test")
    for path in ("report", "orders"):
        with pytest.raises(Forbidden):
            connection.call("POST", f"/v1/nodes/gpu2/{path}", {})
    connection.close()


def test_a_controller_of_another_pool_is_refused_before_the_token_is_sent(site: Site) -> None:
    token = site.token("enrol", "agent")
    done = site.join("gpu1", token[:-16] + "0" * 16)
    assert done.returncode == 125
    assert "is not the pool that this token is for" in done.stderr
    assert site.join("gpu1", token).returncode == 0, "the token was used up"


def test_a_nodes_key_is_not_in_the_database(site: Site) -> None:
    assert site.join("gpu1", site.token("enrol", "agent")).returncode == 0
    identity = json.loads((site.folder / "gpu1/identity.json").read_text())
    site.stop()
    content = b"".join(path.read_bytes() for path in site.folder.glob("ledger.sqlite*"))
    site.start()
    assert bytes.fromhex(identity["node_key"]) not in content
    assert identity["node_key"].encode() not in content
    assert identity["token"].split("_")[2].encode() not in content
    assert os.stat(site.folder / "gpu1/identity.json").st_mode & 0o077 == 0
