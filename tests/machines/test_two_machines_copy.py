"""A copy that a hypervisor makes, which keeps its machine-id and everything on its disk.

SPDX-License-Identifier: Apache-2.0

Only where the client is a full virtual machine (`make machine-qemu`): there is no other hardware
whose uuid could differ. Original and copy have one cable, so one of them runs at a time.
"""

from __future__ import annotations

import os

import pytest

from tests.machines.guest import eventually
from tests.machines.qemu import VirtualMachine
from tests.machines.site import URL, Site

pytestmark = pytest.mark.skipif("OUTBOARD_TEST_VM" not in os.environ, reason="make machine-qemu")
JOURNAL = "journalctl -b --no-pager -u outboard@default"
MACHINE_ID = "cat /etc/machine-id"


def test_a_copy_that_keeps_its_machine_id_is_another_client(site: Site) -> None:
    client = site.client
    assert isinstance(client, VirtualMachine)
    machine_id = client.sh(MACHINE_ID).out
    client.power_off()
    twin = VirtualMachine(client.folder.parent, "twin", site.network, client.base)
    try:
        twin.copy(client)
        twin.boot()
        assert twin.sh(MACHINE_ID).out == machine_id
        refused = "this machine is a copy of another"
        eventually("it says so", lambda: refused in twin.sh(JOURNAL).out)
        assert not site.computes(twin)
        done = twin.sh(f"outboard join {site.join_token('host')} {URL} --name twin")
        assert done.code == 0, done
        done = twin.sh("systemctl restart outboard@default")
        assert done.code == 0, (done, twin.sh(JOURNAL).out)
        twin.state("active")
        eventually("the copy computes", lambda: site.computes(twin))
    finally:
        twin.discard()
    client.boot()
    eventually("the original computes", site.computes)
    assert sorted(site.hosts().values()) == ["client2", "twin"]
