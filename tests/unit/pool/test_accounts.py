"""What was held and used of this machine's own pool is known when the pool has long ended.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import datetime as dt
import getpass
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from outboard.model.request import (
    Allocation,
    GrantedDevice,
    Lease,
    Request,
    Session,
    SessionState,
    Share,
)
from outboard.pool.accounts import Accounts
from tests.unit.conftest import Outboard, eventually

MIB = 1 << 20
SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
EPOCH = dt.datetime.fromtimestamp(0, dt.UTC)


def usage(outboard: Outboard, *words: str) -> Any:
    done = outboard("usage", "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_programs_held_and_used_outlives_the_pool(outboard: Outboard) -> None:
    assert outboard("run", "-m", "100", *outboard.program, "ping", "ping").returncode == 0
    assert outboard("run", "-m", "200", "true").returncode == 0
    outboard("pool", "stop")
    assert not list(outboard.state.rglob("*-wal")), "what it writes is written when it has stopped"
    found = usage(outboard)
    (held,), (used,) = found["held"], found["used"]
    assert held["user"] == used["user"] == getpass.getuser()
    assert held["byte_us"] > 0
    assert (used["calls"], used["busy_us"], used["peak_bytes"]) == (2, 2000, 4 * MIB)
    assert len(usage(outboard, "--by", "session")["held"]) == 2
    by_process = usage(outboard, "--by", "process")
    assert by_process["held"] == [], "what is held is a session's, not a process's"
    assert by_process["used"][0]["process"] == "4711 fake"
    assert outboard("usage", "--by", "nobody").returncode == 125
    assert "CALLS" in outboard("usage").stdout


def test_a_program_that_runs_is_in_the_account(outboard: Outboard) -> None:
    launcher = outboard.start("run", *outboard.program, "ping", "wait")
    assert launcher.stdout is not None
    launcher.stdout.readline()
    assert launcher.stdout.readline() == "pong\n"
    first = usage(outboard)
    assert first["used"][0]["calls"] == 1
    (before,) = first["held"]
    eventually(
        lambda: usage(outboard)["held"][0]["byte_us"] > before["byte_us"], "it holds on and on"
    )
    launcher.terminate()
    launcher.communicate()


def test_a_killed_pool_held_until_it_was_last_heard_of(outboard: Outboard) -> None:
    launcher = outboard.start("run", *outboard.program, "wait")
    assert launcher.stdout is not None
    launcher.stdout.readline()
    seen = usage(outboard)["held"][0]["byte_us"]
    pid = json.loads(outboard("pool", "status", "--json").stdout)["pid"]
    os.kill(pid, signal.SIGKILL)
    launcher.terminate()
    launcher.communicate()
    after = usage(outboard)
    assert after["held"][0]["byte_us"] >= seen
    assert usage(outboard)["held"] == after["held"], "it holds nothing more"


def test_an_account_that_cannot_be_written_ends_no_program(outboard: Outboard) -> None:
    folder = outboard.state / "outboard"
    folder.mkdir(parents=True)
    name = f"usage-{os.uname().nodename}.sqlite"
    (folder / name).write_text("this is no database, and long enough to be taken for one" * 20)
    assert outboard("run", *outboard.program, "ping").returncode == 0
    assert usage(outboard)["used"][0]["calls"] == 1, "it is known for as long as the pool lives"
    assert "cannot be kept in its file" in outboard.log()


class Clock:
    """A clock that goes when told to."""

    def __init__(self) -> None:
        self.now_us = 1_700_000_000 * SECOND_US

    def __call__(self) -> int:
        return self.now_us

    def ago(self, seconds: int) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.now_us // SECOND_US - seconds, dt.UTC)

    def forward(self, seconds: int) -> None:
        self.now_us += seconds * SECOND_US


def session(name: str, *shares_mib: int) -> Session:
    request = Request("0" * 32, len(shares_mib), Share(), None, os.getuid(), 1, "test")
    chosen = [GrantedDevice("n", index, mib * MIB) for index, mib in enumerate(shares_mib)]
    allocation = Allocation("a-1", request.id, 1, tuple(chosen))
    return Session(name, request, allocation, Lease(held=True), SessionState.ACTIVE, 0.0)


@pytest.mark.parametrize("by", [["user"], ["device"], ["session", "day"], ["node", "user"]])
def test_sums_by_any_key_are_the_same_to_the_last_unit(tmp_path: Path, by: list[str]) -> None:
    clock = Clock()
    accounts = Accounts(str(tmp_path), clock)
    first, second = session("s-1", 100, 300), session("s-2", 50)
    accounts.begin(first, [1024 * MIB, 1024 * MIB])
    clock.forward(7)
    accounts.begin(second, [1024 * MIB])
    clock.forward(DAY_US // SECOND_US)
    accounts.end(first)
    clock.forward(11)
    accounts.end(second)
    accounts.close()
    clock.forward(100)
    again = Accounts(str(tmp_path), clock)
    found: Any = again.account(EPOCH, None, by)
    again.close()
    day_s = DAY_US // SECOND_US
    whole = (400 * (day_s + 7) + 50 * (day_s + 11)) * MIB * SECOND_US
    assert sum(line["byte_us"] for line in found["held"]) == whole


def test_what_a_pool_did_not_end_ended_when_it_was_last_heard_of(tmp_path: Path) -> None:
    clock = Clock()
    killed = Accounts(str(tmp_path), clock)
    killed.begin(session("s-1", 100), [1024 * MIB])
    clock.forward(5)
    told = {"session": "s-1", "worker": "w", "uid": 0, "pid": 9, "program": "p", "ended_us": None}
    did = {"index": 0, "busy_us": 10, "calls": 3, "peak_bytes": 1}
    killed.note({"w": {**told, "started_us": clock.now_us - 1, "devices": [did]}})
    clock.forward(1000)
    following = Accounts(str(tmp_path), clock)
    found: Any = following.account(EPOCH, None, ["session"])
    assert [line["byte_us"] for line in found["held"]] == [100 * MIB * 5 * SECOND_US]
    assert [(line["session"], line["calls"]) for line in found["used"]] == [("s-1", 3)]
    assert following.account(clock.ago(900), None, ["user"])["held"] == []
    following.close()
    killed.close()


def test_what_is_older_than_a_year_is_forgotten(tmp_path: Path) -> None:
    clock = Clock()
    accounts = Accounts(str(tmp_path), clock)
    accounts.begin(session("s-1", 100), [1024 * MIB])
    clock.forward(5)
    accounts.close()
    clock.forward(401 * DAY_US // SECOND_US)
    following = Accounts(str(tmp_path), clock)
    assert following.account(EPOCH, None, ["user"])["held"] == []
    following.close()
