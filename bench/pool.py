"""How a controller scales: simulated agents, an open loop of allocations, loopback HTTPS.

SPDX-License-Identifier: Apache-2.0

    python -m bench.pool                          # 1000 nodes of 8, 200/s for 60 s, SQLite
    python -m bench.pool --database postgresql    # the same, on a server of its own with fsync on
    python -m bench.pool --growth --rate 50 --seconds 20

One controller process as `outboard controller` starts it; this process is all the agents (a report
each every 10 s, one at a time, and at once when a session of theirs is over) and all the clients
(allocate, then release, at a fixed rate whatever the answers take; latencies count from when a
call was due). Beside them: what a fsync costs on the same disk, and the CPU time of both, since
a machine with other work gives neither of them all of its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outboard.controller.installation import ControllerConfiguration, create_installation
from outboard.ledger import enrolment, nodes, subjects, tokens
from outboard.ledger.database import Database
from outboard.ledger.transaction import Transaction
from outboard.model.node import Device, Node
from tests.unit.ledger.postgres import Postgres, private_postgres

MIB = 1 << 20
CAPACITY_BYTES = 80_000 * MIB
REPORT_EVERY_S = 10.0
CONNECTIONS = 64
USERS = 50
SHARE_BYTES = 4096 * MIB


class Caller(asyncio.Protocol):
    """HTTP/1.1 with keep-alive on one connection, one call at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._received = b""
        self._answered: asyncio.Future[tuple[int, bytes]]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if not self._answered.done():
            self._answered.set_exception(error or ConnectionResetError("the controller hung up"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, content = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0")
        if len(content) >= size:
            self._received = b""
            self._answered.set_result((int(head[9:12]), content))

    def __call__(self, head: bytes, body: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """The status and the content of a call's answer."""
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body))
        return self._answered

    def close(self) -> None:
        self._transport.close()


def head_of(method: str, path: str, token: str) -> bytes:
    """A call's head up to the length of its body."""
    lines = (f"{method} {path} HTTP/1.1", "Host: pool", f"Authorization: Bearer {token}")
    return "\r\n".join((*lines, "Content-Type: application/json", "")).encode()


class Load:
    """Agents and clients over a number of connections."""

    def __init__(self, port: int, authority: str, node_tokens: dict[str, str], users: list[str]):
        self._port, self._authority = port, authority
        self._idle: asyncio.Queue[Caller] = asyncio.Queue()
        self.users = users
        self._nodes = list(node_tokens)
        self._reports = {
            node: head_of("POST", f"/v1/nodes/{node}/report", token)
            for node, token in node_tokens.items()
        }
        self._requests = [head_of("POST", "/v1/requests", token) for token in users]
        self._ended: dict[str, list[str]] = {node: [] for node in node_tokens}
        self._reporting: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.latencies: dict[str, list[float]] = {}
        self.failures: Counter[str] = Counter()

    async def connect(self) -> None:
        """Open the connections, before anything is measured."""
        context = ssl.create_default_context(cafile=self._authority)
        for _ in range(CONNECTIONS):
            _, made = await asyncio.get_running_loop().create_connection(
                Caller, "127.0.0.1", self._port, ssl=context, server_hostname="127.0.0.1"
            )
            self._idle.put_nowait(made)

    async def close(self) -> None:
        """Close them; nothing is on its way."""
        while not self._idle.empty():
            self._idle.get_nowait().close()

    async def run(self, rate: float, seconds: float) -> None:
        """The load for so long, until the last answer."""
        self.latencies = {"allocate": [], "release": [], "report": []}
        begun = time.monotonic()
        every_s = REPORT_EVERY_S / len(self._nodes)
        await asyncio.gather(
            self._pace(begun, seconds, every_s, lambda number, _due: self._heartbeat(number)),
            self._pace(begun, seconds, 1 / rate if rate else seconds + 1, self._job),
        )
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _pace(self, begun: float, seconds: float, every_s: float, work: Any) -> None:
        """Start work at a fixed pace: an open loop."""
        number = 1
        while number * every_s < seconds:
            due = begun + number * every_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.ensure_future(work(number, due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            number += 1

    async def _heartbeat(self, number: int) -> None:
        await self._report(self._nodes[number % len(self._nodes)])

    async def _report(self, node: str) -> None:
        """What an agent says: that it lives, and which sessions are over; one report at a time."""
        if node in self._reporting:
            return  # the one on its way is followed by the next
        self._reporting.add(node)
        while True:
            ended, self._ended[node] = self._ended[node], []
            body = b'{"sessions":[],"ended":%s,"health":{"healthy":true,"devices":[]}}'
            await self._timed("report", self._reports[node], body % json.dumps(ended).encode())
            if not self._ended[node]:
                break
        self._reporting.discard(node)

    async def _job(self, _number: int, due: float) -> None:
        """Allocate a part of a GPU, then release it; its node's agent says that it is over."""
        user = random.randrange(len(self.users))
        body = b'{"id":"%s","gpus":1,"share":{"bytes":%d}}'
        body = body % (os.urandom(16).hex().encode(), SHARE_BYTES)
        answer = await self._timed("allocate", self._requests[user], body, due)
        if "allocation" not in answer:
            return
        session = answer["session"]
        path = f"/v1/sessions/{session['session']}?hold_s=0"
        await self._timed("release", head_of("DELETE", path, self.users[user]), b"")
        node = session["nodes"][0]["name"]
        self._ended[node].append(answer["allocation"])
        await self._report(node)

    @contextlib.asynccontextmanager
    async def _caller(self) -> AsyncIterator[Caller]:
        caller = await self._idle.get()
        try:
            yield caller
        finally:
            self._idle.put_nowait(caller)

    async def _timed(
        self, name: str, head: bytes, body: bytes, due: float | None = None
    ) -> dict[str, Any]:
        begun = time.monotonic() if due is None else due
        async with self._caller() as call:
            status, content = await call(head, body)
        self.latencies[name].append(time.monotonic() - begun)
        answer: dict[str, Any] = json.loads(content)
        if status >= 400 or (name == "allocate" and status != 201):
            self.failures[f"{name} {status} {answer.get('code', answer.get('reason', ''))}"] += 1
        return answer


def prepare(
    folder: Path, url: str, count: int, devices: int
) -> tuple[int, dict[str, str], list[str]]:
    """A controller's folder with a full pool: its port, the nodes' tokens, the users' tokens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    address = f"127.0.0.1:{port}"
    made = create_installation(
        str(folder / "ctl"),
        ControllerConfiguration("bench", ("127.0.0.1",), address, (f"https://{address}",), url),
    )
    database, mark = Database(url), made.authority.mark

    def fill(tx: Transaction) -> tuple[dict[str, str], list[str]]:
        node_tokens = {}
        for number in range(count):
            name = f"gpu{number:05d}"
            sealed = made.sealing.seal(name, os.urandom(32))
            node_tokens[name] = enrolment.enrol_node(tx, name, name, sealed, mark)
            nodes.register_node(tx, _node(name, devices))
        texts = []
        for number in range(USERS):
            subjects.ensure_user(tx, f"user{number}")
            texts.append(tokens.create_token(tx, ("user", f"user{number}"), ["use", "read"]))
        return node_tokens, texts

    result = database.write(fill)
    database.close()
    return port, *result


def _node(name: str, devices: int) -> Node:
    made = tuple(
        Device(
            index=index,
            uuid=f"GPU-{name}-{index}",
            name="NVIDIA H100 80GB HBM3",
            total_bytes=CAPACITY_BYTES + 600 * MIB,
            capacity_bytes=CAPACITY_BYTES,
            context_bytes=600 * MIB,
            minimum_share_bytes=600 * MIB,
            compute_capability="9.0",
            pci=f"0000:{index:02x}:00.0",
            multiprocessors=132,
        )
        for index in range(devices)
    )
    return Node(name, f"{name}:7861", "psk", "driver", 13000, "0" * 64, False, made)


def cpu_s(pids: list[int]) -> float:
    """Seconds of CPU that processes have used, and those of their children that have ended."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):  # it has ended, and is its parent's
            text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
            ticks += sum(int(field) for field in text.rpartition(")")[2].split()[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def fsync_p99_ms(folder: Path) -> float:
    """What the disk takes to keep 4 KiB, 99th percentile of 300."""
    times = []
    with open(folder / "fsync", "wb") as file:
        for _ in range(300):
            file.write(os.urandom(4096))
            file.flush()
            begun = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begun)
    return percentile(times, 0.99)


def percentile(times: list[float], part: float) -> float:
    """In milliseconds."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000 if ordered else 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """What one run met, as one line of the table."""

    devices: int
    database: str
    rate: float
    reached: float
    p50_ms: dict[str, float]
    p99_ms: dict[str, float]
    fsync_p99_ms: float
    controller_ms: float
    database_ms: float | None
    generator_ms: float
    gpus_s: float
    failures: str

    HEAD = (
        "| devices | database | asked/s | reached/s | allocate p50 / p99 ms | release p50 / p99 ms"
        " | report p50 / p99 ms | fsync p99 ms | controller CPU ms/op | database CPU ms/op"
        " | generator CPU ms/op | `gpus` s | failures |\n|" + "---|" * 13
    )

    def line(self) -> str:
        """As Markdown."""
        times = [
            f"{self.p50_ms[name]:.1f} / {self.p99_ms[name]:.1f}"
            for name in ("allocate", "release", "report")
        ]
        database = "" if self.database_ms is None else f"{self.database_ms:.2f}"
        numbers = (f"{self.fsync_p99_ms:.1f}", f"{self.controller_ms:.2f}", database)
        cells = (
            *(str(self.devices), self.database, f"{self.rate:g}", f"{self.reached:.1f}", *times),
            *(*numbers, f"{self.generator_ms:.2f}", f"{self.gpus_s:.2f}", self.failures),
        )
        return f"| {' | '.join(cells)} |"


async def measure(
    load: Load, given: argparse.Namespace, pid: int, server: Postgres | None
) -> tuple[float, ...]:
    """The load after a round of heartbeats: seconds that it took, CPU seconds of the controller, of
    the database's server and of its own."""

    def now() -> tuple[float, ...]:
        of_server_s = cpu_s(server.pids()) if server else 0.0
        return time.monotonic(), cpu_s([pid]), of_server_s, time.process_time()

    await load.connect()
    await load.run(min(5.0, given.rate), REPORT_EVERY_S + 1)
    load.failures.clear()
    before = now()
    await load.run(given.rate, given.seconds)
    spent = tuple(late - soon for soon, late in zip(before, now(), strict=True))
    await load.close()
    return spent


def list_gpus(folder: Path, port: int, load: Load, expected: int) -> float:
    """How many seconds a listing of all GPUs takes, as a user types it."""
    environment = {
        **os.environ,
        "OUTBOARD_POOL": f"https://127.0.0.1:{port}",
        "OUTBOARD_TOKEN": load.users[0],
        "OUTBOARD_AUTHORITY": str(folder / "ctl/authority.pem"),
    }
    begun = time.monotonic()
    command = [sys.executable, "-m", "outboard", "gpus", "--json"]
    out = subprocess.run(command, env=environment, check=True, capture_output=True).stdout
    taken_s = time.monotonic() - begun
    assert len(json.loads(out)["devices"]) == expected
    return taken_s


def run(given: argparse.Namespace, count: int, url: str, server: Postgres | None) -> Result:
    """One controller with so many nodes, under load; `server` is the database's, if it is known."""
    folder = Path(tempfile.mkdtemp(prefix="ob-bench-"))
    if url == "sqlite":
        url = f"sqlite:///{folder}/ledger.sqlite"
    try:
        port, node_tokens, users = prepare(folder, url, count, given.devices)
        fsync_ms = fsync_p99_ms(folder)
        command = [sys.executable, "-m", "outboard.controller", "serve", "--state"]
        controller = subprocess.Popen([*command, str(folder / "ctl")], stderr=subprocess.DEVNULL)
        try:
            _wait_listening(port, controller)
            load = Load(port, str(folder / "ctl/authority.pem"), node_tokens, users)
            taken_s, of_controller_s, of_server_s, own_s = asyncio.run(
                measure(load, given, controller.pid, server)
            )
            done = len(load.latencies["release"])
            return Result(
                devices=count * given.devices,
                database=url.partition(":")[0],
                rate=given.rate,
                reached=done / taken_s,
                p50_ms={name: percentile(all_s, 0.5) for name, all_s in load.latencies.items()},
                p99_ms={name: percentile(all_s, 0.99) for name, all_s in load.latencies.items()},
                fsync_p99_ms=fsync_ms,
                controller_ms=of_controller_s * 1000 / max(1, done),
                database_ms=of_server_s * 1000 / max(1, done) if server else None,
                generator_ms=own_s * 1000 / max(1, done),
                gpus_s=list_gpus(folder, port, load, count * given.devices),
                failures=", ".join(f"{n} x {what}" for what, n in load.failures.items()) or "none",
            )
        finally:
            controller.terminate()
            controller.wait()
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--devices", type=int, default=8, help="of each node")
    parser.add_argument("--rate", type=float, default=200.0, help="allocate + release a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--database",
        default="sqlite",
        help="sqlite, postgresql (a server of its own, with fsync), or postgresql://… (empty)",
    )
    parser.add_argument("--growth", action="store_true", help="100 to 10,000 devices")
    given = parser.parse_args()
    with contextlib.ExitStack() as kept:
        server = None
        if given.database == "postgresql":
            server = kept.enter_context(private_postgres(durable=True))
        print(Result.HEAD, flush=True)
        for count in (13, 125, 375, 1250) if given.growth else (given.nodes,):
            url = server.url() if server else given.database
            print(run(given, count, url, server).line(), flush=True)


def _wait_listening(port: int, controller: subprocess.Popen[bytes]) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if controller.poll() is not None:
                raise SystemExit("the controller did not start") from None
            time.sleep(0.05)


if __name__ == "__main__":
    main()
