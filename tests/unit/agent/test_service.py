"""The agent's process: it reports, obeys, and neither its end nor its controller's ends a program.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import HANG_GUARD_S, SOURCES, eventually, make_native
from tests.unit.fakes import program
from tests.unit.fakes.connected import Program
from tests.unit.fakes.controller import TOKEN, FakeController


class AgentProcess:
    """An agent with fake workers, enrolled with a fake controller; may be killed and started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.controller = FakeController(folder)
        self.controller.enrol(folder / "state")
        make_native(folder / "native")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.listen = f"127.0.0.1:{free.getsockname()[1]}"
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        self.controller.inventory = {}
        words = [sys.executable, "-m", "outboard.agent", "--listen", self.listen]
        words += ["--state", self.folder / "state", "--runtime", self.folder / "run"]
        words += ["--driver", "software", "--warm-workers", "1", "--plaintext-data-plane"]
        words += ["--isolation", "off"]  # the fake worker's interpreter lies anywhere
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(SOURCES),
            "OUTBOARD_NATIVE_DIR": str(self.folder / "native"),
        }
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(words, env=environment, stderr=log)
        eventually(lambda: bool(self.controller.inventory), "the agent has reported")

    def end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.wait(HANG_GUARD_S)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def reported(self, session: str) -> dict[str, Any] | None:
        last = self.controller.reports[-1]["sessions"]
        return next((known for known in last if known["session"] == session), None)

    def programs(self, session: str) -> int:
        return int((self.reported(session) or {"programs": -1})["programs"])


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    folder = Path(tempfile.mkdtemp(prefix="ob-"))
    made = AgentProcess(folder)
    made.start()
    try:
        yield made
    finally:
        made.end(signal.SIGTERM)
        made.controller.stop()
        shutil.rmtree(folder)


def test_it_reports_what_is_here_with_its_own_token(agent: AgentProcess) -> None:
    inventory = agent.controller.inventory
    assert inventory["address"] == agent.listen
    assert [device["name"] for device in inventory["devices"]] == ["Fake GPU"]
    assert agent.controller.authorization == {f"Bearer {TOKEN}"}
    assert agent.controller.reports[0]["health"]["healthy"] is True


def test_an_agent_that_listens_everywhere_says_where_it_is_reached(agent: AgentProcess) -> None:
    agent.end(signal.SIGTERM)
    port = agent.listen.rpartition(":")[2]
    agent.listen = f"0.0.0.0:{port}"
    agent.start()
    assert agent.controller.inventory["address"] == f"127.0.0.1:{port}"


def test_programs_and_what_they_hold_are_reported(agent: AgentProcess) -> None:
    running = Program(agent.controller.session("s-1", "a-1"))
    assert running.say(b"take 1048576") == b"ok\n"
    held = (4 << 20) + (1 << 20)
    eventually(
        lambda: (agent.reported("s-1") or {}).get("held_bytes") == [held], "what is held is known"
    )
    assert agent.programs("s-1") == 1
    running.close()
    eventually(lambda: agent.programs("s-1") == 0, "its end is known")


def test_an_order_ends_the_session_and_its_grant_for_good(agent: AgentProcess) -> None:
    session = agent.controller.session("s-1", "a-1")
    running = Program(session)
    agent.controller.end("s-1", "released")
    assert running.hear() == b"ended: released\n"
    eventually(lambda: "a-1" in agent.controller.ended, "the controller knows it is over")
    running.close()
    for _ in range(2):
        with program.connect(session, program.preface(session)) as connection:
            assert b'"code": "ended"' in connection.recv(4096)
        agent.end(signal.SIGKILL)
        agent.start()


def test_a_grant_that_was_never_used_is_ended_too(agent: AgentProcess) -> None:
    session = agent.controller.session("s-1", "a-1")
    agent.controller.end("s-1", "released")
    eventually(lambda: "a-1" in agent.controller.ended, "the controller knows it is over")
    with program.connect(session, program.preface(session)) as connection:
        assert b'"code": "ended"' in connection.recv(4096)


def test_what_the_ledger_does_not_know_is_ended(agent: AgentProcess) -> None:
    session = agent.controller.session("s-1", "a-1")
    del agent.controller.known["s-1"]
    running = Program(session)
    assert running.hear() == b"ended: the pool does not know it\n"
    running.close()


def test_programs_outlive_a_controller_and_start_without_one(agent: AgentProcess) -> None:
    session = agent.controller.session("s-1", "a-1")
    running = Program(session)
    agent.controller.stop()
    assert running.say(b"ping") == b"pong\n"
    second = Program(session)
    eventually(lambda: "does not answer" in agent.log(), "the agent noticed")
    count = len(agent.controller.reports)
    agent.controller.start()
    eventually(lambda: len(agent.controller.reports) > count, "it reports again")
    eventually(lambda: agent.programs("s-1") == 2, "both programs are there")
    assert (running.say(b"ping"), second.say(b"ping")) == (b"pong\n", b"pong\n")
    running.close()
    second.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_programs_outlive_their_agent_and_obey_the_next(
    agent: AgentProcess, how: signal.Signals
) -> None:
    session = agent.controller.session("s-1", "a-1")
    running = Program(session)
    running.say(b"take 1048576")
    agent.end(how)
    assert running.say(b"ping") == b"pong\n"
    agent.start()
    held = [(4 << 20) + (1 << 20)]
    eventually(lambda: (agent.reported("s-1") or {}).get("held_bytes") == held, "it is adopted")
    eventually(lambda: "adopted" in agent.log(), "the worker has called")
    # Its limit still counts for both, its bulk connections still arrive, and so do orders.
    second = Program(session)
    assert second.welcome["claim"]["slot"] == 1
    assert second.say(b"take %d" % (296 << 20)) == b"oom\n"
    assert running.bulk() == b"bulk here\n"
    agent.controller.end("s-1", "released")
    assert (running.hear(), second.hear()) == (b"ended: released\n", b"ended: released\n")
    eventually(lambda: "a-1" in agent.controller.ended, "the controller knows it is over")
    assert list((agent.folder / "run/sessions").iterdir()) == []
    running.close()
    second.close()


def test_a_worker_that_ended_without_an_agent_leaves_nothing(agent: AgentProcess) -> None:
    running = Program(agent.controller.session("s-1", "a-1"))
    running.say(b"take 1048576")
    agent.end(signal.SIGKILL)
    running.close()
    agent.start()
    eventually(lambda: (agent.reported("s-1") or {}).get("held_bytes") == [0], "nothing is held")
    assert agent.programs("s-1") == 0


def test_a_bulk_connection_outlives_its_grant(agent: AgentProcess) -> None:
    session = agent.controller.session("s-1", "a-1", lifetime_s=2)
    running = Program(session)

    def expired() -> bool:
        with program.connect(session, program.preface(session)) as connection:
            return b'"code": "expired"' in connection.recv(4096)

    eventually(expired, "the grant expires")
    assert running.bulk() == b"bulk here\n"
    running.close()


def test_a_removed_node_ends_its_sessions(agent: AgentProcess) -> None:
    running = Program(agent.controller.session("s-1", "a-1"))
    agent.controller.removed = True
    assert running.hear() == b"ended: this server was removed from its pool\n"
    running.close()


def test_a_stranger_is_not_adopted(agent: AgentProcess) -> None:
    running = Program(agent.controller.session("s-1", "a-1"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect(str(agent.folder / "run/calls/agent.sock"))
        stranger.send(json.dumps({"type": "adopt", "id": running.welcome["id"]}).encode())
        assert stranger.recv(100) == b""
    assert running.say(b"ping") == b"pong\n"
    running.close()
