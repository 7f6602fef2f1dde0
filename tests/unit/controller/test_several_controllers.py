"""Several controllers of one pool, made as an administrator makes them; one dies, nothing else.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import contextlib
import json
import os
import random
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

from tests.unit.conftest import FAKES, HANG_GUARD_S, SOURCES, eventually, make_native
from tests.unit.controller.site import new_site
from tests.unit.ledger.postgres import Postgres

# Pings its worker for each line that it is told.
_PROGRAM = f"""
import json, os, sys
sys.path.insert(0, {str(FAKES)!r})
import program
session = json.load(open(os.environ["OUTBOARD_SESSION"]))
connection = program.connect(session, program.preface(session))
answers = connection.makefile()
answers.readline()
for line in sys.stdin:
    connection.sendall(b"ping\\n")
    print(answers.readline(), end="", flush=True)
"""


def _quiet_port() -> int:
    """A port for later: below those that the kernel gives to whoever connects meanwhile."""
    while True:
        port = random.randrange(20000, 32000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Administrator:
    """Types commands, and starts what the units would."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        make_native(folder / "native")
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": str(SOURCES),
            "OUTBOARD_NATIVE_DIR": str(folder / "native"),
            "OUTBOARD_RUNTIME_DIR": str(folder / "run"),
            "OUTBOARD_CONTROLLER_LEASE": "18s",
        }
        where = self.place("127.0.0.1")
        self.environment["OUTBOARD_TOKEN"] = self(
            *("controller", "init", *where, "--database", database)
        ).strip()
        self.environment["OUTBOARD_AUTHORITY"] = str(folder / "127.0.0.1/authority.pem")
        self.environment["OUTBOARD_POOL"] = self.url("127.0.0.1")

    def place(self, name: str) -> list[str]:
        """Where a controller of that name is to be."""
        listen = f"127.0.0.1:{_quiet_port()}"
        return ["--state", str(self.folder / name), "--name", name, "--listen", listen]

    def url(self, name: str) -> str:
        told = json.loads((self.folder / name / "controller.json").read_text())
        return str(told["addresses"][0])

    def run(self, *words: str, said: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "outboard", *words],
            env={**self.environment, **more},
            input=said,
            capture_output=True,
            text=True,
            timeout=HANG_GUARD_S,
            check=False,
        )

    def __call__(self, *words: str, said: str = "", **more: str) -> str:
        """What a command prints that succeeds."""
        done = self.run(*words, said=said, **more)
        assert done.returncode == 0, done
        return done.stdout

    def json(self, *words: str, **more: str) -> Any:
        return json.loads(self(*words, "--json", **more))

    def start(self, name: str, *words: str) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "outboard", *words], env=self.environment, stderr=log
            )

    def serve(self, name: str) -> None:
        """Start a controller, and wait until it answers."""
        self.start(name, "controller", "--state", str(self.folder / name))
        there = {"OUTBOARD_POOL": self.url(name)}
        log, process = self.folder / f"{name}.log", self.running[name]

        def serves() -> bool:
            assert process.poll() is None, log.read_text()
            return self.run("gpus", **there).returncode == 0

        eventually(serves, f"{name} serves")

    def join(self, name: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Have one more controller join."""
        token = self("tokens", "create", "--join", "controller")
        pool = self.environment["OUTBOARD_POOL"]
        return self.run("controller", "join", pool, *self.place(name), *more, said=token)

    def add_agent(self, name: str) -> None:
        state = str(self.folder / name)
        token = self("tokens", "create", "--join", "node")
        pool = self.environment["OUTBOARD_POOL"]
        self("join", "-", pool, "--name", name, "--state", state, said=token)
        self.start_agent(name)
        eventually(lambda: bool(self.json("gpus")["devices"]), f"{name} has reported")

    def start_agent(self, name: str) -> None:
        words = ["--state", str(self.folder / name), "--runtime", str(self.folder / f"{name}.run")]
        words += ["--listen", f"127.0.0.1:{_quiet_port()}", "--driver", "software"]
        self.start(name, "agent", *words, "--plaintext-data-plane", "--isolation", "off")

    def agent_knows(self, name: str) -> set[str]:
        """The controllers that an agent would look for after a restart."""
        told = json.loads((self.folder / name / "identity.json").read_text())
        assert len(told["keys"]) == len(told["controllers"])
        return set(told["controllers"])

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        process = self.running.pop(name)
        process.send_signal(number)
        process.wait(HANG_GUARD_S)


@pytest.fixture
def administrator(postgres: Postgres) -> Iterator[Administrator]:
    folder = Path(tempfile.mkdtemp(prefix="ob-"))  # short: a socket's path has 107 bytes
    made = Administrator(folder, postgres.url())
    try:
        made.serve("127.0.0.1")
        yield made
    finally:
        for name in list(made.running):
            made.kill(name)
        shutil.rmtree(folder)


@contextlib.contextmanager
def computing(administrator: Administrator, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A program on a GPU of the pool, which pings for each line."""
    words = ["run", "-m", "100", "--", sys.executable, "-c", _PROGRAM]
    launcher = subprocess.Popen(
        [sys.executable, "-m", "outboard", *words],
        env={**administrator.environment, **more},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ping(launcher)
        yield launcher
    finally:
        launcher.kill()
        with launcher:  # its pipes are closed, also those that the test closed
            pass


def ping(launcher: subprocess.Popen[str]) -> None:
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    launcher.stdin.write("\n")
    launcher.stdin.flush()
    assert launcher.stdout.readline() == "pong\n"


def granted(administrator: Administrator, **more: str) -> list[int]:
    devices = administrator.json("gpus", **more)["devices"]
    return [device["granted_bytes"] for device in devices]


def doctor_on_pool(administrator: Administrator, **more: str) -> list[str]:
    """What the doctor says of the pool's controllers."""
    checks = json.loads(administrator.run("doctor", "--quick", "--json", **more).stdout)["checks"]
    return [one["state"] for one in checks if one["check"] == "pool"]


def test_a_program_goes_on_and_the_next_one_starts_when_a_controller_dies(
    administrator: Administrator,
) -> None:
    administrator.add_agent("gpu1")
    joined = administrator.join("localhost")
    assert joined.returncode == 0, joined.stderr
    administrator.serve("localhost")
    names = [one["name"] for one in administrator.json("controller", "list")["controllers"]]
    assert names == ["127.0.0.1", "localhost"]
    urls = {administrator.url(name) for name in names}
    eventually(lambda: administrator.agent_knows("gpu1") == urls, "the agent knows both")
    both = {"OUTBOARD_POOL": ",".join(administrator.url(name) for name in names)}
    assert doctor_on_pool(administrator, **both) == ["pass", "pass"]
    with computing(administrator, **both) as launcher:
        administrator.kill("127.0.0.1")
        ping(launcher)
        assert doctor_on_pool(administrator, **both) == ["pass", "warn"]
        assert administrator("run", "-m", "100", "--", "true", **both) == ""
        # An agent that is started now finds the one that is left, and goes on with what runs.
        administrator.kill("gpu1", signal.SIGTERM)
        administrator.start_agent("gpu1")
        log = administrator.folder / "gpu1.log"
        eventually(lambda: ": 1 programs went on" in log.read_text(), "the agent goes on")
        ping(launcher)
        assert launcher.stdin is not None
        launcher.stdin.close()
        assert launcher.wait(HANG_GUARD_S) == 0
    eventually(lambda: granted(administrator, **both) == [0], "all is free again")


def test_a_removed_controller_is_believed_no_more(administrator: Administrator) -> None:
    administrator.add_agent("gpu1")
    only = administrator.run("controller", "remove", "127.0.0.1")
    assert (only.returncode, "the pool's only controller" in only.stderr) == (125, True)
    assert administrator.join("localhost").returncode == 0
    administrator.serve("localhost")
    other = {"OUTBOARD_POOL": administrator.url("localhost")}
    eventually(lambda: len(administrator.agent_knows("gpu1")) == 2, "the agent knows both")
    administrator.kill("127.0.0.1")
    administrator("controller", "remove", "127.0.0.1", **other)
    left = {administrator.url("localhost")}
    eventually(lambda: administrator.agent_knows("gpu1") == left, "the agent knows the one left")
    again = administrator.run("controller", "--state", str(administrator.folder / "127.0.0.1"))
    assert (again.returncode, "was removed from this pool" in again.stderr) == (125, True)


def test_a_token_that_one_controller_revokes_is_worth_nothing_at_another(
    administrator: Administrator,
) -> None:
    assert administrator.join("localhost").returncode == 0
    administrator.serve("localhost")
    token = administrator("tokens", "create", "--user", "ann").strip()
    other = {"OUTBOARD_POOL": administrator.url("localhost"), "OUTBOARD_TOKEN": token}
    administrator("gpus", **other)
    administrator("tokens", "revoke", token.split("_")[1])

    def refused() -> bool:
        return "unknown, expired or revoked" in administrator.run("gpus", **other).stderr

    # Long before the other controller would look at a token again that it has found good.
    eventually(refused, "the other controller refuses the token")


def test_a_name_is_one_controllers(administrator: Administrator, tmp_path: Path) -> None:
    second = administrator.join("127.0.0.1", "--state", str(tmp_path / "second"))
    assert (second.returncode, "is another controller of this pool" in second.stderr) == (125, True)
    assert not (tmp_path / "second/controller.json").exists()


def test_a_pool_on_sqlite_has_one_controller_and_the_token_stays_good(tmp_path: Path) -> None:
    with new_site() as site:
        token = site.token("enrol", "controller", uses=1)
        for _ in range(2):
            done = subprocess.run(
                *([sys.executable, "-m", "outboard", "controller", "join", site.url],),
                env={**site.environment, "OUTBOARD_CONTROLLER_STATE": str(tmp_path / "ctl")},
                input=token,
                capture_output=True,
                text=True,
                timeout=HANG_GUARD_S,
                check=False,
            )
            assert (done.returncode, "ledger is a SQLite file" in done.stderr) == (125, True), done
        assert not (tmp_path / "ctl/controller.json").exists()
