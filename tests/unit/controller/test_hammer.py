"""Four controllers on one PostgreSQL, 32 clients, controllers killed every few seconds.

SPDX-License-Identifier: Apache-2.0

OUTBOARD_HAMMER_SECONDS makes it longer (`make soak`: 60). What must hold, at every moment and at
the end: no byte granted twice, no request granted twice, no limit exceeded, nothing left over.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import requests
import sqlalchemy as sa

from outboard.ledger import limits, nodes, subjects, tokens
from outboard.ledger.database import Database
from outboard.ledger.schema import allocations, devices, grants, leases, limit_use
from outboard.ledger.transaction import Transaction
from tests.unit.controller.deployment import MIB, node, release_ending
from tests.unit.ledger.postgres import Postgres

SECONDS = float(os.environ.get("OUTBOARD_HAMMER_SECONDS", "12"))
CONTROLLERS, CLIENTS, USERS = 4, 32, 8
KILL_EVERY_S = (2.0, 4.0)
HANG_GUARD_S = 120.0
ROOT = Path(__file__).parents[3]


class Controllers:
    """The processes, each on a port of its own; `kill_for_ever` ends one and starts it anew."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.ports = [_free_port() for _ in range(CONTROLLERS)]
        self._processes = [self._start(port) for port in self.ports]
        self.kills = 0

    def kill_for_ever(self, over: threading.Event, dice: random.Random) -> None:
        while not over.wait(dice.uniform(*KILL_EVERY_S)):
            number = dice.randrange(CONTROLLERS)
            self._processes[number].send_signal(signal.SIGKILL)
            self._processes[number].wait()
            self.kills += 1
            self._processes[number] = self._start(self.ports[number])

    def wait_ready(self) -> None:
        deadline = time.monotonic() + HANG_GUARD_S
        for port in self.ports:
            while True:
                try:
                    requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5)
                    break
                except requests.RequestException:
                    assert time.monotonic() < deadline, "a controller did not start"
                    time.sleep(0.05)

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.unit.controller.hammered", self._url, str(port)]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        return subprocess.Popen(command, env=environment, cwd=ROOT)


class HammerClient:
    """Asks, sometimes twice with the same id and of two controllers, keeps, gives back."""

    def __init__(self, ports: list[int], token: str, seed: int, counts: Counter[str]) -> None:
        self._ports, self._dice, self._counts = ports, random.Random(seed), counts
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"
        self.grants: dict[str, set[str]] = {}

    def run(self, over: threading.Event) -> None:
        while not over.is_set():
            body = {
                "id": f"{self._dice.getrandbits(128):032x}",
                "gpus": self._dice.randrange(1, 4),
                "share": {"bytes": self._dice.randrange(1, 400) * MIB},
                "hold_s": self._dice.choice((0.0, 0.2)),
            }
            answer = self._insist("POST", "/v1/requests", body, over)
            answer = self._wait(str(body["id"]), answer, over)
            if answer is not None and self._dice.random() < 0.3:
                answer = self._insist("POST", "/v1/requests", body, over) or answer
            if answer is None or "session" not in answer:
                continue
            self.grants.setdefault(str(body["id"]), set()).add(str(answer["allocation"]))
            session = str(answer["session"]["session"])
            if self._dice.random() < 0.5:
                self._insist("POST", f"/v1/sessions/{session}/renew", None, over)
            if self._dice.random() < 0.8:  # the others leave without a word
                self._insist("DELETE", f"/v1/sessions/{session}?hold_s=0", None, over)
        self._session.close()

    def _wait(
        self, request: str, answer: dict[str, object] | None, over: threading.Event
    ) -> dict[str, object] | None:
        """Ask for a waiting request a few times, then leave: mostly with a word."""
        for _ in range(3):
            if answer is None or answer.get("state") != "waiting":
                return answer
            answer = self._insist("GET", f"/v1/requests/{request}?hold_s=1", None, over)
        if self._dice.random() < 0.8:
            self._insist("DELETE", f"/v1/requests/{request}", None, over)
        return None

    def _insist(
        self, method: str, path: str, body: object, over: threading.Event
    ) -> dict[str, object] | None:
        """Repeat a call, of any controller, until one answers; None for a refusal or at the end."""
        while not over.is_set():
            url = f"http://127.0.0.1:{self._dice.choice(self._ports)}{path}"
            try:
                answer = self._session.request(method, url, json=body, timeout=20)
            except requests.RequestException:
                self._counts["broken"] += 1
                time.sleep(0.02)
                continue
            self._counts[f"{method} {answer.status_code}"] += 1
            if answer.status_code == 503:
                continue
            assert answer.status_code != 500, answer.text
            return answer.json() if answer.status_code < 400 else None
        return None


def check(tx: Transaction) -> int:
    """Every invariant, on one snapshot; returns how many allocations there are."""
    total = sa.func.sum(grants.c.share_bytes)
    live = sa.select(grants.c.node, grants.c.idx, total).where(grants.c.ended_us.is_(None))
    held = {
        (row[0], row[1]): int(row[2])
        for row in tx.connection.execute(live.group_by(grants.c.node, grants.c.idx))
    }
    for row in tx.connection.execute(sa.select(devices)):
        assert row.granted_bytes == held.get((row.node, row.idx), 0), "counter and grants differ"
        assert row.granted_bytes <= row.capacity_bytes, "granted twice"
    for row in tx.connection.execute(sa.select(limit_use)):
        assert row.maximum is None or row.used <= row.maximum, "a limit is exceeded"
    of_users = (
        sa.select(grants.c.user_name, sa.func.count(), total)
        .where(grants.c.ended_us.is_(None))
        .group_by(grants.c.user_name)
    )
    sums = {row[0]: (int(row[1]), int(row[2])) for row in tx.connection.execute(of_users)}
    used = sa.select(limit_use).where(limit_use.c.subject_kind == "user")
    for row in tx.connection.execute(used):
        gpus, amount = sums.get(row.subject, (0, 0))
        expected = {"gpus": gpus, "bytes": amount}.get(row.kind, row.used)
        assert row.used == expected, "a limit's counter is wrong"
    return int(tx.connection.scalar(sa.select(sa.func.count()).select_from(allocations)) or 0)


def test_controllers_that_are_killed_grant_nothing_twice_and_leak_nothing(
    postgres: Postgres,
) -> None:
    seed = int(os.environ.get("OUTBOARD_HAMMER_SEED", "1"))
    url = postgres.url()
    database = Database(url)
    users = [f"user{number}" for number in range(USERS)]

    def prepare(tx: Transaction) -> list[str]:
        nodes.register_node(tx, node("n1", 4))
        nodes.register_node(tx, node("n2", 4))
        limits.set_limit(tx, ("user", "*"), "gpus", 5)
        limits.set_limit(tx, ("group", "all"), "bytes", 5000 * MIB)
        for user in users:
            subjects.set_groups(tx, user, ["all"])
        return [tokens.create_token(tx, ("user", user), ["use"]) for user in users]

    texts = database.write(prepare)
    controllers = Controllers(url)
    counts: Counter[str] = Counter()
    clients = [
        HammerClient(controllers.ports, texts[number % USERS], seed * 1000 + number, counts)
        for number in range(CLIENTS)
    ]
    over, agents_over = threading.Event(), threading.Event()

    def agents() -> None:
        while not agents_over.wait(0.02):
            release_ending(database)

    threads = [threading.Thread(target=client.run, args=(over,)) for client in clients]
    threads.append(
        threading.Thread(target=controllers.kill_for_ever, args=(over, random.Random(seed)))
    )
    working = threading.Thread(target=agents)
    try:
        controllers.wait_ready()
        for thread in [*threads, working]:
            thread.start()
        ends = time.monotonic() + SECONDS
        checks = granted = 0
        # A machine with other work has done little by then, and needs longer.
        while time.monotonic() < ends or (
            (granted <= 20 or controllers.kills < 2) and time.monotonic() < ends + HANG_GUARD_S
        ):
            granted = database.read(check)
            checks += 1
            time.sleep(0.05)
        over.set()
        for thread in threads:
            thread.join(HANG_GUARD_S)
        granted = database.read(check)
        print(
            f"seed {seed}: {granted} grants, {controllers.kills} kills, {checks} checks: {counts}"
        )
        assert granted > 20
        assert controllers.kills >= 2
        for client in clients:
            for request, made in client.grants.items():
                assert len(made) == 1, f"{request} was granted {len(made)} times"
        _wait_empty(database)
    finally:
        over.set()
        agents_over.set()
        working.join(HANG_GUARD_S)
        controllers.stop()
        database.close()


def _wait_empty(database: Database) -> None:
    """After the lease time nothing is left, although many clients left without a word."""
    deadline = time.monotonic() + HANG_GUARD_S

    def left(tx: Transaction) -> int:
        held = tx.connection.scalar(sa.select(sa.func.sum(devices.c.granted_bytes))) or 0
        alive = tx.connection.scalar(sa.select(sa.func.count()).select_from(leases)) or 0
        used = tx.connection.scalar(sa.select(sa.func.sum(limit_use.c.used))) or 0
        return int(held) + int(alive) + int(used)

    while database.read(left):
        assert time.monotonic() < deadline, "something is left over"
        time.sleep(0.1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
