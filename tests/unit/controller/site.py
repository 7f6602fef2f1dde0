"""A controller on a loopback port, in this process, and real agents with fake workers of its pool.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from outboard.controller.installation import (
    ControllerConfiguration,
    Installation,
    announce,
    create_installation,
)
from outboard.controller.server import Parts, make_app, make_parts, server_configuration
from outboard.controller.service import Pace
from outboard.ledger import allocations, requests, subjects, tokens
from outboard.ledger.database import Database
from outboard.ledger.grants import Granted, granted_of
from outboard.ledger.requests import Terms
from outboard.model.request import GrantedDevice, Request, Share
from tests.unit.conftest import HANG_GUARD_S, SOURCES, eventually, make_native
from tests.unit.controller.deployment import Server, forget_connections


class Site:
    """One pool. `grant` and `end` are what the API will do; they go to the ledger themselves.

    With `native` the agents have real workers, on the software GPU, and speak TLS with programs.
    """

    def __init__(
        self, folder: Path, database_url: str | None = None, native: Path | None = None
    ) -> None:
        self.folder = folder
        self.real = native is not None
        if native is None:
            make_native(folder / "native")
        else:
            (folder / "native").symlink_to(native)
        self.port = free_port()
        configuration = ControllerConfiguration(
            name="one",
            names=("127.0.0.1",),
            listen=f"127.0.0.1:{self.port}",
            addresses=(f"https://127.0.0.1:{self.port}",),
            database=database_url or f"sqlite:///{folder}/ledger.sqlite",
        )
        self.installation: Installation = create_installation(str(folder / "ctl"), configuration)
        self.url = configuration.addresses[0]
        self.terms = Terms(silent_us=None)
        self.agents: dict[str, Agent] = {}
        self.parts: Parts
        self._server: Server
        self.start()

    def start(self) -> None:
        database = Database(self.installation.configuration.database)
        announce(database, self.installation)
        pace = Pace(keep_s=0.2, feed_s=0.05, grace_s=0.0)
        self.parts = make_parts(self.installation, database, self.terms, pace)
        self.parts.fleet._report_every_s = 0.2
        app = make_app(self.parts)
        self._server = Server(server_configuration(app, self.installation))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        eventually(lambda: self._server.started, "the controller listens")

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(HANG_GUARD_S)
        assert not self._thread.is_alive()
        self.parts.database.close()
        forget_connections()

    def close(self) -> None:
        for agent in self.agents.values():
            agent.end(signal.SIGKILL)
        self.stop()

    def token(self, *scopes: str, uses: int | None = None) -> str:
        mark = self.installation.authority.mark
        return self.parts.database.write(
            lambda tx: tokens.create_token(tx, ("join", ""), scopes, uses=uses, ca_hash=mark)
        )

    def join(self, name: str, token: str) -> subprocess.CompletedProcess[str]:
        state = str(self.folder / name)
        words = ["join", token, self.url, "--name", name, "--state", state]
        return subprocess.run(
            [sys.executable, "-m", "outboard", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=HANG_GUARD_S,
            check=False,
        )

    def add_agent(self, name: str) -> Agent:
        done = self.join(name, self.token("enrol", "agent"))
        assert done.returncode == 0, done.stderr
        agent = self.agents[name] = Agent(self, name)
        agent.start()
        eventually(lambda: bool(self.devices(name)), f"{name} has reported its devices")
        return agent

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(SOURCES),
            "OUTBOARD_NATIVE_DIR": str(self.folder / "native"),
        }

    def devices(self, node: str) -> Sequence[Any]:
        from outboard.ledger.schema import devices

        return self.parts.database.read(
            lambda tx: tx.connection.execute(
                devices.select().where(devices.c.node == node, devices.c.healthy)
            ).all()
        )

    def grant(self, devices: Sequence[tuple[str, int, int]], user: str = "ada") -> Granted:
        """Grant these (node, index, bytes)."""
        request = Request(
            id=os.urandom(16).hex(),
            gpus=len(devices),
            share=Share(amount_bytes=devices[0][2]),
            wait_s=None,
            uid=0,
            pid=1,
            program="test",
            user=user,
        )

        def write(tx: Any) -> Granted:
            subjects.ensure_user(tx, user)
            requests.submit(tx, request)
            chosen = [GrantedDevice(*device) for device in devices]
            granted = requests.grant(tx, request.id, chosen, self.terms)
            assert isinstance(granted, Granted), granted
            return granted

        return self.parts.database.write(write)

    def session(self, granted: Granted) -> dict[str, Any]:
        """The content of its session file."""
        content, _ = self.parts.database.read(
            lambda tx: self.parts.grants.session_file(tx, granted)
        )
        return content.to_json()

    def end(self, granted: Granted, reason: str) -> None:
        self.parts.database.write(
            lambda tx: allocations.begin_end(tx, granted.allocation, "test", reason)
        )

    def state(self, granted: Granted) -> str:
        return self.parts.database.read(lambda tx: granted_of(tx, granted.request)).state

    def granted_bytes(self, node: str) -> list[int]:
        return [row.granted_bytes for row in self.devices(node)]


class Agent:
    """One agent's process."""

    def __init__(self, site: Site, name: str) -> None:
        self.site = site
        self.name = name
        self.listen = f"127.0.0.1:{free_port()}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> None:
        words = [sys.executable, "-m", "outboard", "agent", "--listen", self.listen]
        words += ["--state", str(self.site.folder / self.name), "--driver", "software"]
        words += ["--runtime", str(self.site.folder / f"{self.name}.run")]
        if not self.site.real:
            # The fake worker has no TLS, and its interpreter lies anywhere.
            words += ["--plaintext-data-plane", "--isolation", "off"]
        with open(self.site.folder / f"{self.name}.log", "ab") as log:
            self.process = subprocess.Popen(
                words, env={**self.site.environment, **environment}, stderr=log
            )

    def end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(HANG_GUARD_S)
            self.process = None

    def log(self) -> str:
        return (self.site.folder / f"{self.name}.log").read_text()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextlib.contextmanager
def new_site(native: Path | None = None) -> Iterator[Site]:
    """A site without GPU servers, in a folder of its own, for the time of the context."""
    folder = Path(tempfile.mkdtemp(prefix="ob-"))  # short: a socket's path has 107 bytes
    made = Site(folder, native=native)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)
