"""A pool of two servers as its users meet it: the launcher, the controller's API, agents, workers.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from outboard.ledger import subjects, tokens
from outboard.ledger.transaction import Transaction
from tests.unit.conftest import FAKES, HANG_GUARD_S, eventually
from tests.unit.controller.site import Site


class User:
    """Someone with a token of a site."""

    def __init__(self, site: Site, name: str) -> None:
        def work(tx: Transaction) -> str:
            subjects.ensure_user(tx, name)
            return tokens.create_token(tx, ("user", name), ["use"])

        self.environment = {
            **site.environment,
            "OUTBOARD_RUNTIME_DIR": str(site.folder / f"run-{name}"),
            "OUTBOARD_POOL": site.url,
            "OUTBOARD_TOKEN": site.parts.database.write(work),
            "OUTBOARD_AUTHORITY": site.installation.path("authority.pem"),
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "outboard", *words],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=HANG_GUARD_S)
        return process.returncode, out, err


PROGRAM = [sys.executable, str(FAKES / "program.py")]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="ob-"))  # short: a socket's path has 107 bytes
    made = Site(folder)
    try:
        for name in ("gpu1", "gpu2"):
            made.add_agent(name)
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)


def free(site: Site) -> bool:
    return not any(site.granted_bytes("gpu1") + site.granted_bytes("gpu2"))


def test_a_program_runs_on_a_server_of_the_pool_and_leaves_it_free(site: Site) -> None:
    ann = User(site, "ann")
    code, out, err = ann("run", "-n", "1", *PROGRAM, "ping")
    assert (code, "pong" in out) == (0, True), err
    assert "gpu" in err
    eventually(lambda: free(site), "all is free again")


def test_who_comes_to_a_full_pool_waits_until_somebody_leaves(site: Site) -> None:
    ann, bob = User(site, "ann"), User(site, "bob")
    total = len(site.granted_bytes("gpu1") + site.granted_bytes("gpu2"))
    code, _, err = bob("run", "-n", str(total + 1), *PROGRAM, "ping")
    assert (code, f"this pool has {total} GPUs" in err) == (125, True)
    holders = [ann.start("run", "-n", "1", "cat") for _ in range(total)]
    eventually(
        lambda: all(site.granted_bytes("gpu1") + site.granted_bytes("gpu2")), "the pool is full"
    )
    code, _, err = bob("run", "--no-wait", *PROGRAM, "ping")
    assert (code, "the pool is busy" in err) == (125, True)
    code, _, err = bob("run", "--wait", "2s", *PROGRAM, "ping")
    assert (code, "no GPU within" in err) == (124, True), err
    waiting = bob.start("run", *PROGRAM, "ping")
    for holder in holders:
        holder.communicate(timeout=HANG_GUARD_S)  # cat ends with its stdin
    out, err = waiting.communicate(timeout=HANG_GUARD_S)
    assert (waiting.returncode, "pong" in out) == (0, True), err
    eventually(lambda: free(site), "all is free again")


def test_what_a_user_lists_is_the_pool_and_the_users_own(site: Site) -> None:
    ann, bob = User(site, "ann"), User(site, "bob")
    holder = ann.start("run", "-n", "1", "cat")
    eventually(lambda: "cat" in ann("sessions")[1], "ann sees her session")
    assert "cat" not in bob("sessions")[1]
    code, out, err = bob("gpus")
    assert (code, "gpu1" in out, "gpu2" in out) == (0, True, True), err
    holder.communicate(timeout=HANG_GUARD_S)
    eventually(lambda: free(site), "all is free again")


def test_a_restarted_controller_goes_on_with_what_runs(site: Site) -> None:
    ann = User(site, "ann")
    holder = ann.start("run", "-n", "1", "cat")
    eventually(lambda: not free(site), "it runs")
    before = site.granted_bytes("gpu1") + site.granted_bytes("gpu2")
    site.stop()
    site.start()
    assert site.granted_bytes("gpu1") + site.granted_bytes("gpu2") == before
    holder.communicate(timeout=HANG_GUARD_S)
    assert holder.returncode == 0
    eventually(lambda: free(site), "all is free again")


def test_a_killed_launcher_leaves_its_lease_to_time(site: Site) -> None:
    ann = User(site, "ann")
    holder = ann.start("run", "-n", "1", "cat")
    eventually(lambda: not free(site), "it runs")
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate(timeout=HANG_GUARD_S)
    assert not free(site)
    rows = site.parts.database.read(
        lambda tx: tx.connection.exec_driver_sql("SELECT expires_us FROM leases").all()
    )
    assert len(rows) == 1
    site.parts.database.write(
        lambda tx: tx.connection.exec_driver_sql("UPDATE leases SET expires_us = 0")
    )
    eventually(lambda: free(site), "the lease is over, and the memory free")


def test_a_controller_is_backed_up_while_it_works_and_restored_while_it_does_not(
    site: Site,
) -> None:
    admin = User(site, "ann")
    copy = str(site.folder / "copy")
    state = ("--state", site.installation.folder)
    code, _, err = admin("controller", "backup", copy, *state)
    assert code == 0, err
    code, _, err = admin("controller", "restore", copy, *state)
    assert (code, "another controller has the ledger" in err) == (125, True)
    code, _, err = admin("controller", "backup", *state)
    assert (code, "backup takes FILE" in err) == (125, True)
    site.stop()
    code, _, err = admin("controller", "restore", copy, *state)
    assert (code, "the ledger is restored" in err) == (0, True), err
    site.start()
    code, out, err = admin("run", "--wait", "1m", *PROGRAM, "ping")
    assert (code, "pong" in out) == (0, True), err
    eventually(lambda: free(site), "all is free again")
