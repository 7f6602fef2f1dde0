"""One machine for all stories, with a pool of its own that starts when a story says so.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.guest import ROOT, Guest

_POOL_UNIT = """\
[Unit]
Description=The pool under test
[Service]
User=outboard
RuntimeDirectory=testpool
Environment=PYTHONPATH=/usr/lib/outboard/python OUTBOARD_DRIVER=software OUTBOARD_LEASE=9s
Environment=OUTBOARD_POOL_IDLE=1h HOME=/run/testpool
ExecStart=/usr/bin/python3 -s -m outboard.pool --runtime /run/testpool
Restart=no
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="session")
def guest() -> Iterator[Guest]:
    """A machine on which the package is installed and the service is enabled; it is off."""
    if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None:
        pytest.exit("machines need root and systemd-nspawn (Debian: systemd-container)", 77)
    packages = sorted((ROOT / "build/package").glob("outboard_*.deb"))
    assert packages, "there is no package: make package"
    folder = Path(tempfile.mkdtemp(prefix="outboard-machines-", dir="/dev/shm"))
    made = Guest(folder, "client1")
    try:
        made.prepare(packages[-1], ROOT / "build/programs/static")
        unit = made.root / "etc/systemd/system/testpool.service"
        unit.write_text(_POOL_UNIT, encoding="utf-8")
        made.boot()
        done = made.call(["dpkg", "-i", "/var/outboard.deb"])
        assert done.code == 0, done
        configuration = made.root / "etc/outboard/config.toml"
        configuration.parent.mkdir()
        configuration.write_text('pool = "unix:/run/testpool/pool.sock"\n', encoding="utf-8")
        yield made
    finally:
        made.discard()
        folder.rmdir()
