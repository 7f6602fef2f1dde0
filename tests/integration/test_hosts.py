"""A client, two GPU servers and a controller on a network: one program on all of it, and a cable.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.harness import Native, eventually
from tests.integration.hosts import Hosts
from tests.integration.pool_of_machines import PoolOfMachines

pytestmark = pytest.mark.skipif(not Hosts.possible(), reason="cannot make network namespaces here")


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    made = Hosts(("controller", "gpu1", "gpu2", "client"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def pool(hosts: Hosts, native: Native) -> Iterator[PoolOfMachines]:
    folder = Path(tempfile.mkdtemp(prefix="ob-"))  # short: a socket's path has 107 bytes
    addresses = {name: hosts.addresses[name] for name in ("controller", "gpu1", "gpu2")}
    made = PoolOfMachines(native, folder, addresses, hosts.machine, devices=2)
    yield made
    made.stop()
    shutil.rmtree(folder)


def granted_bytes(pool: PoolOfMachines) -> list[int]:
    return [device["granted_bytes"] for device in pool.json("gpus")["devices"]]


def test_one_program_computes_on_devices_of_both_servers(
    pool: PoolOfMachines, native: Native
) -> None:
    outcome = pool.call("run", "-n", "3", "--", native.program("everyDevice", "driver"))
    assert outcome.returncode == 0, outcome.describe()
    assert "devices: 3\neveryDevice: Result = PASS" in outcome.stdout
    assert "on gpu1 (" in outcome.stderr
    assert "on gpu2 (" in outcome.stderr
    assert granted_bytes(pool) == [0, 0, 0, 0]


def test_a_pulled_cable_is_a_clear_end_and_leaves_nothing(
    pool: PoolOfMachines, hosts: Hosts, native: Native
) -> None:
    with pool.running("-n", "1", "--server", "gpu1", "--", native.program("longLoop")) as program:
        program.read_until("READY")
        hosts.pull("gpu1")
        assert program.read_until("ERROR") == "ERROR 46 cudaErrorDevicesUnavailable"
        assert program.finish().returncode == 1
    # What may still be held over there is nobody else's until its server says that it is gone.
    assert sum(granted_bytes(pool)) > 0
    hosts.plug("gpu1")
    eventually("its bytes are free", lambda: sum(granted_bytes(pool)) == 0, guard_s=120.0)
    eventually("its worker has ended", lambda: not pool.workers("gpu1"))
    outcome = pool.call("run", "--server", "gpu1", "--", native.program("matrixMul"))
    assert outcome.returncode == 0, outcome.describe()
