"""The machines: one with a pool of its own that starts when a story says so, two on a network.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.guest import ROOT, TIMES, Guest
from tests.machines.nspawn import Container
from tests.machines.site import LEASE_S, Site, equip, plan_site, the_package

_POOL_UNIT = f"""\
[Unit]
Description=The pool under test
[Service]
User=outboard
RuntimeDirectory=testpool
Environment=PYTHONPATH=/usr/lib/outboard/python OUTBOARD_DRIVER=software OUTBOARD_LEASE={LEASE_S}s
Environment=OUTBOARD_POOL_IDLE=1h HOME=/run/testpool
ExecStart=/usr/bin/python3 -s -m outboard.pool --runtime /run/testpool
Restart=no
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="session")
def guest() -> Iterator[Guest]:
    """A machine on which the package is installed and the service is enabled; it is off."""
    _require_machines()
    package = the_package()
    folder = Path(tempfile.mkdtemp(prefix="outboard-machines-", dir="/dev/shm"))
    made = Container(folder, "client1")
    try:
        made.prepare(package, ROOT / "build/programs/static")
        made.boot()
        made.write("/etc/systemd/system/testpool.service", _POOL_UNIT)
        made.install()
        made.write("/etc/outboard/config.toml", 'pool = "unix:/run/testpool/pool.sock"\n')
        yield made
    finally:
        made.discard()
        folder.rmdir()


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A client machine and a GPU server on a network, in use."""
    _require_machines()
    folder = Path(tempfile.mkdtemp(prefix="outboard-machines-", dir="/dev/shm"))
    made = plan_site(folder)
    try:
        equip(made)
        yield made
    finally:
        made.client.discard()
        made.server.discard()
        made.network.close()
        folder.rmdir()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures of this run: they are read, and never asserted."""
    if not TIMES:
        return
    terminalreporter.section("times")
    for what, seconds in TIMES:
        terminalreporter.write_line(f"{seconds:9.2f} s  {what}")


def _require_machines() -> None:
    if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None:
        pytest.exit("machines need root and systemd-nspawn (Debian: systemd-container)", 77)
