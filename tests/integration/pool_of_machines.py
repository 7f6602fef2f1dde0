"""A pool as administrators set it up: controller, GPU servers and a user, each by its commands.

SPDX-License-Identifier: Apache-2.0

Everything runs on this machine, on loopback ports; `machine` may put a command elsewhere (a network
namespace).
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.harness import (
    HANG_S,
    Native,
    Outcome,
    Running,
    alive,
    clean_environment,
    eventually,
    kill,
    run_program,
)

Machine = Callable[[str, Sequence[str | Path]], list[str]]


def here(_host: str, words: Sequence[str | Path]) -> list[str]:
    """Every host is this machine."""
    return [str(word) for word in words]


class Process:
    """A daemon that a test starts, kills and starts again; its output is a file."""

    def __init__(self, words: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self._words = list(words)
        self._environment = environment
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._words, env=self._environment, stdout=log, stderr=log
            )

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(HANG_S)
            self._process = None

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""


class PoolOfMachines:
    """One controller, some GPU servers, one user who has signed in."""

    def __init__(
        self,
        native: Native,
        folder: Path,
        addresses: dict[str, str],
        machine: Machine = here,
        devices: int = 1,
    ) -> None:
        """`addresses` are the hosts': `controller`, then every GPU server by its name."""
        self.native = native
        self.folder = folder
        self._machine = machine
        self._addresses = addresses
        self._devices = devices
        self._port = free_port()
        self.url = f"https://{addresses['controller']}:{self._port}"
        self.agents: dict[str, Process] = {}
        state = ["--state", str(folder / "ctl")]
        made = self.run_on(
            "controller",
            *("controller", "init", *state, "--name", addresses["controller"]),
            *("--listen", f"{addresses['controller']}:{self._port}"),
        )
        self._admin_token = made.stdout.strip()
        words = machine("controller", [*self.outboard, "controller", *state])
        self.controller = Process(words, self._environment("controller"), folder / "ctl.log")
        self.controller.start()
        self.run_on("client", "login", self.url, stdin=self._admin_token, patient=True)
        for name in addresses:
            if name != "controller":
                self._add_server(name)

    @property
    def outboard(self) -> list[str]:
        return [sys.executable, "-m", "outboard"]

    def _environment(self, host: str) -> dict[str, str]:
        home = self.folder / f"home-{host}"
        home.mkdir(exist_ok=True)
        return clean_environment(home) | {
            "OUTBOARD_NATIVE_DIR": str(self.native.root),
            "OUTBOARD_RUNTIME_DIR": str(self.folder / f"run-{host}"),
            "SOFTGPU_DEVICES": str(self._devices),
        }

    def _add_server(self, name: str) -> None:
        token = self.json("tokens", "create", "--join", "node")["token"]
        state = ["--state", str(self.folder / name)]
        self.run_on(name, "join", "-", self.url, "--name", name, *state, stdin=token)
        listen = f"{self._addresses[name]}:{free_port()}"
        words = [*self.outboard, "agent", *state, "--listen", listen, "--driver", "software"]
        words += ["--runtime", str(self.folder / f"{name}.run")]
        log = self.folder / f"{name}.log"
        agent = Process(self._machine(name, words), self._environment(name), log)
        agent.start()
        self.agents[name] = agent
        eventually(f"{name} offers its GPUs", lambda: name in self.servers_with_gpus())

    def servers_with_gpus(self) -> set[str]:
        return {device["node"] for device in self.json("gpus")["devices"] if device["healthy"]}

    def run_on(
        self, host: str, *words: str | Path, stdin: str | None = None, patient: bool = False
    ) -> Outcome:
        """`outboard WORDS` on a host; it must succeed, at once or (patient) in time."""
        command = self._machine(host, [*self.outboard, *words])

        def attempt() -> Outcome | None:
            made = run_program(command, self._environment(host), stdin=stdin)
            assert patient or made.returncode == 0, made.describe()
            return made if made.returncode == 0 else None

        return eventually(f"outboard {words[0]}", attempt)

    def call(self, *words: str | Path) -> Outcome:
        """`outboard WORDS` of the user, however it ends."""
        return run_program(
            self._machine("client", [*self.outboard, *words]), self._environment("client")
        )

    def json(self, *words: str) -> Any:
        return json.loads(self.run_on("client", *words, "--json").stdout)

    @contextmanager
    def running(self, *words: str | Path) -> Iterator[Running]:
        """`outboard run WORDS` of the user, going on while the block runs."""
        command = self._machine("client", [*self.outboard, "run", *words])
        program = Running(command, self._environment("client"))
        try:
            yield program
        finally:
            program.stop()

    def workers(self, name: str) -> list[int]:
        """The claimed workers of a server that live."""
        found = []
        for path in (self.folder / f"{name}.run/sessions").glob("*.json"):
            found += [worker["pid"] for worker in json.loads(path.read_text())["workers"]]
        return [pid for pid in found if alive(pid)]

    def stop(self) -> None:
        pids = [pid for name in self.agents for pid in self.workers(name)]
        for agent in self.agents.values():
            agent.end()
        self.controller.end()
        for pid in pids:
            kill(pid)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
