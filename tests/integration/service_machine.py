"""A machine for the client service: its own /run in a mount namespace, its own pool, no systemd.

SPDX-License-Identifier: Apache-2.0

The service's paths are fixed, since programs find them without any variable; so that tests neither
see the machine's own service nor each other's, each has a /run/outboard and a /run/user of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.integration.harness import HANG_S, Native, Outcome, Pool, Running, eventually

_MOUNTS = """
set -e
mkdir -p /run/outboard /run/user
mount -t tmpfs -o mode=755 outboard-test /run/outboard
mount -t tmpfs -o mode=755 outboard-test /run/user
echo ready
exec sleep infinity
"""


@dataclass
class Service:
    """A service in the foreground: the daemon that systemd would run."""

    running: Running

    @property
    def pid(self) -> int:
        return self.running.process.pid

    def signal(self, number: signal.Signals) -> Outcome:
        """Send it and wait for the end."""
        self.running.process.send_signal(number)
        return self.running.finish()


@dataclass
class Machine:
    """A namespace in which a service and programs of any user run."""

    native: Native
    pool: Pool
    options: dict[str, str] = field(default_factory=dict)
    _holder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        # As root of a user namespace where the tests run without being root.
        options = ["-m"] if os.geteuid() == 0 else ["-rm"]
        self._holder = subprocess.Popen(
            ["unshare", *options, "sh", "-c", _MOUNTS], stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        if self._holder is not None:
            self._holder.kill()
            self._holder.communicate()

    @contextmanager
    def service(self, *options: str) -> Iterator[Service]:
        """`outboard service run` with these options; killed at the block's end if it runs."""
        words = self.pool.command("service", "run", "--system", *options)
        running = Running(self.inside(words), self.environment)
        try:
            yield Service(running)
        finally:
            running.stop()

    def outboard(self, *words: str) -> Outcome:
        """`outboard` with these words, as root of this machine."""
        return self._finish(self.pool.command(*words), self.environment)

    def status(self) -> dict[str, Any]:
        """What the service says of itself; empty where it does not run."""
        outcome = self.outboard("status", "--json")
        services = json.loads(outcome.stdout)["services"]
        return dict(services[0]) if services else {}

    def state(self, wanted: str) -> dict[str, Any]:
        """Wait for a state of the service."""
        return eventually(
            f"the service is {wanted}",
            lambda: status if (status := self.status()).get("state") == wanted else None,
        )

    def program(self, name: str, *prefix: str) -> Outcome:
        """A program as any shell starts it: the loader knows the shim, and that is all."""
        return self._finish([*prefix, self.native.program(name)], self.bare)

    @contextmanager
    def programs(self, name: str) -> Iterator[Running]:
        """The same, going on while the block runs."""
        running = Running(self.inside([self.native.program(name)]), self.bare)
        try:
            yield running
        finally:
            running.stop()

    @property
    def environment(self) -> dict[str, str]:
        return self.pool.environment | self.options

    @property
    def bare(self) -> dict[str, str]:
        """What stands for ld.so.conf.d, and nothing else."""
        return {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(self.native.shim)}

    def inside(self, words: Sequence[str | Path]) -> list[str | Path]:
        assert self._holder is not None
        enter: list[str | Path] = ["nsenter", "-m"]
        if os.geteuid() != 0:
            enter += ["-U", "--preserve-credentials"]
        return [*enter, "-t", str(self._holder.pid), *words]

    def _finish(self, words: Sequence[str | Path], environment: dict[str, str]) -> Outcome:
        done = subprocess.run(
            [str(word) for word in self.inside(words)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr, b"")
