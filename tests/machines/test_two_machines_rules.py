"""What administrators say holds on client machines: how long, by whom, and for whose copies.

SPDX-License-Identifier: Apache-2.0

On the two machines of test_two_machines.py, after its stories.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.machines.guest import GUARD_S, PROGRAMS, USER, eventually
from tests.machines.nspawn import Container
from tests.machines.site import URL, Site

LOOP = f"{PROGRAMS}/longLoop"
# Long enough that a quarter of it, in which programs are told, is noticed by a busy machine.
SESSION_S = 16
JOURNAL = "journalctl -b --no-pager -u outboard@default"
# Only a stop ends the session: a restart would take it over.
ANEW = "systemctl stop outboard@default; systemctl start outboard@default"


@pytest.fixture
def limited(site: Site) -> Iterator[Site]:
    """Sessions of this machine's service live for some seconds."""
    site.administer(f"limits set user root session_s {SESSION_S}s")
    site.client.sh(ANEW)
    yield site
    site.administer("limits delete user root session_s")
    site.client.sh(ANEW)
    assert site.client.state("active")["ends"] is None


def test_a_session_that_nobody_uses_is_exchanged_before_its_time_is_up(limited: Site) -> None:
    before = limited.client.state("active")["session"]
    assert "the pool ends the session at " in limited.client.service()["line"]

    def exchanged() -> bool:
        service = limited.client.service()
        return service.get("state") == "active" and service["session"] != before

    eventually("another session", exchanged)
    assert limited.computes()
    assert "lost the GPUs" not in limited.client.sh(JOURNAL).out.rpartition(before)[2]


def test_a_program_that_outlives_its_session_is_told_at_its_terminal(limited: Site) -> None:
    status = limited.client.state("active")
    assert 0 <= status["ends_in_s"] <= SESSION_S
    command = f"script -qfc '{LOOP} --rounds 1000000000' /dev/null"
    program = limited.client.start(["su", "-l", USER, "-c", command])
    shown, _ = program.communicate("", GUARD_S)
    told = "the GPU session ends in "
    assert f"outboard: {told}" in shown
    assert told in limited.client.sh(JOURNAL).out
    eventually("a login shell computes", limited.computes)


def test_gpus_come_by_the_service_alone_where_an_administrator_says_so(site: Site) -> None:
    site.client.state("active")
    run = "outboard run -n 1 -p 0.25 -- /bin/true"
    allowed = site.client.sh(run)
    assert allowed.code == 0, allowed
    site.administer("hosts set client2 --policy service-only")
    refused = site.client.sh(run)
    assert refused.code == 125
    assert "on this machine GPUs are had by its service alone" in refused.err
    assert site.computes()
    assert site.client.sh(ANEW).code == 0
    site.client.state("active")
    site.administer("hosts set client2 --policy any")
    assert site.client.sh(run).code == 0


def test_a_user_who_may_not_ask_directly_computes_by_the_service(site: Site) -> None:
    site.client.state("active")
    token = site.administer("tokens create --user user2")["token"]
    login = site.client.call(["su", "-l", "user2", "-c", f"echo {token} | outboard login {URL}"])
    assert login.code == 0, login
    run = ["su", "-l", "user2", "-c", "outboard run -n 1 -p 0.25 -- /bin/true"]
    allowed = site.client.call(run)
    assert allowed.code == 0, allowed
    site.administer("users set user2 --direct no")
    refused = site.client.call(run)
    assert refused.code == 125
    assert "user user2 has GPUs by client services alone" in refused.err
    assert site.computes()


@pytest.mark.parametrize("same", [False, True], ids=["own machine-id", "one machine-id"])
def test_machines_made_from_one_image_are_two_clients(site: Site, same: bool) -> None:
    """Containers may have one machine-id: whoever copies them gives them another name alone."""
    client = site.client
    assert isinstance(client, Container)
    token = site.join_token("host", uses=2)
    assert client.sh(f"outboard join {token} {URL} --image").code == 0
    machine_id = client.sh("cat /etc/machine-id").out
    client.power_off()
    twin = Container(client.folder.parent, "client3", site.network.namespaces["client3"])
    try:
        twin.copy(client)
        if same:
            (twin.root / "etc/machine-id").write_text(machine_id, encoding="ascii")
        for guest in (client, twin):
            guest.boot()
        eventually("a login shell computes", site.computes)
        eventually("a login shell of the twin computes", lambda: site.computes(twin))
        assert (twin.sh("cat /etc/machine-id").out == machine_id) == same
        hosts = site.hosts()

        def holders() -> list[str]:
            return sorted(hosts[one["host"]] for one in site.administer("sessions")["sessions"])

        # What an earlier twin held, which lost its power, goes with its lease.
        eventually("each has a session", lambda: holders() == ["client2", "client3"])
        assert site.computes()
        assert client.service()["session"] != twin.service()["session"]
        twin.power_cut()
        twin.boot()
        eventually("a login shell of the twin computes", lambda: site.computes(twin))
        assert site.hosts() == hosts  # joined once, not at every boot
    finally:
        twin.discard()


def test_a_copy_without_a_join_token_does_not_use_the_token_of_its_original(site: Site) -> None:
    client = site.client
    assert isinstance(client, Container)
    client.sh("rm /etc/outboard/join.toml")
    client.power_off()
    twin = Container(client.folder.parent, "client3", site.network.namespaces["client3"])
    try:
        twin.copy(client)
        twin.boot()
        eventually(
            "it says so", lambda: "this machine is a copy of another" in twin.sh(JOURNAL).out
        )
        assert not site.computes(twin)
        shown = "systemctl show -p ExecMainStatus --value outboard@default"
        eventually("the service rests", lambda: twin.sh(shown).out == "78\n")
    finally:
        twin.discard()
    client.boot()
    eventually("a login shell computes", site.computes)
