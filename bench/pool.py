"""How a controller scales: simulated agents, an open loop of allocations, loopback HTTPS.

SPDX-License-Identifier: Apache-2.0

    python -m bench.pool --nodes 1000 --rate 200 --seconds 60 --database sqlite
    python -m bench.pool --database postgresql:///bench?host=/run/postgresql

One controller process as `outboard controller` starts it; this process is all the agents (a report
each every 10 s) and all the clients (allocate, then release, at a fixed rate whatever the answers
take; latencies count from when a call was due). Beside them: what a fsync costs on the same disk.
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
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from outboard.controller.installation import ControllerConfiguration, create_installation
from outboard.ledger import enrolment, nodes, subjects, tokens
from outboard.ledger.database import Database
from outboard.ledger.transaction import Transaction
from outboard.model.node import Device, Node

MIB = 1 << 20
CAPACITY_BYTES = 80_000 * MIB
REPORT_EVERY_S = 10.0
CONNECTIONS = 64
USERS = 50


class Call:
    """HTTP/1.1 with keep-alive on one connection, for one call at a time."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port, self._context = port, context
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def __call__(
        self, method: str, path: str, token: str, body: object = None
    ) -> tuple[int, dict[str, Any]]:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(
                "127.0.0.1", self._port, ssl=self._context, server_hostname="127.0.0.1"
            )
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: pool\r\nAuthorization: Bearer {token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        self._writer.write(head.encode() + data)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        size = 0
        for line in answer.split("\r\n"):
            if line.lower().startswith("content-length:"):
                size = int(line.partition(":")[2])
        content = await self._reader.readexactly(size)
        return int(answer.split(" ")[1]), json.loads(content) if content else {}


class Load:
    """Agents and clients over a number of connections."""

    def __init__(self, port: int, authority: str, node_tokens: dict[str, str], users: list[str]):
        context = ssl.create_default_context(cafile=authority)
        self._idle: asyncio.Queue[Call] = asyncio.Queue()
        for _ in range(CONNECTIONS):
            self._idle.put_nowait(Call(port, context))
        self._node_tokens, self.users = node_tokens, users
        self._ended: dict[str, list[str]] = {}
        self.latencies: dict[str, list[float]] = {"allocate": [], "release": [], "report": []}
        self.failures: dict[str, int] = {}

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Call]:
        call = await self._idle.get()
        try:
            yield call
        finally:
            self._idle.put_nowait(call)

    async def report(self, node: str) -> None:
        """What an agent says: that it lives, and which sessions are over."""
        ended = self._ended.pop(node, [])
        body = {"sessions": [], "ended": ended, "health": {"healthy": True, "devices": []}}
        await self._timed(
            "report", "POST", f"/v1/nodes/{node}/report", self._node_tokens[node], body
        )

    async def job(self, due: float) -> None:
        """Allocate a part of a GPU, then release it."""
        token = random.choice(self.users)
        body = {"id": os.urandom(16).hex(), "gpus": 1, "share": {"bytes": 4096 * MIB}}
        status, answer = await self._timed("allocate", "POST", "/v1/requests", token, body, due)
        if status != 201:
            return
        session = answer["session"]
        path = f"/v1/sessions/{session['session']}?hold_s=0"
        await self._timed("release", "DELETE", path, token)
        node = session["nodes"][0]["name"]
        self._ended.setdefault(node, []).append(answer["allocation"])
        await self.report(node)

    async def agents(self, ends: float) -> None:
        """Every node reports once in an interval, evenly spread."""
        names = list(self._node_tokens)
        tasks, number = set(), 0
        begun = time.monotonic()
        while time.monotonic() < ends:
            task = asyncio.ensure_future(self.report(names[number % len(names)]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
            due = begun + number * REPORT_EVERY_S / len(names)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*tasks)

    async def clients(self, rate: float, ends: float) -> None:
        """An open loop: calls are due at a fixed rate, whatever the answers take."""
        tasks, number, begun = set(), 0, time.monotonic()
        while time.monotonic() < ends:
            due = begun + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.ensure_future(self.job(due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.gather(*tasks)

    async def _timed(
        self,
        name: str,
        method: str,
        path: str,
        token: str,
        body: object = None,
        due: float | None = None,
    ) -> tuple[int, dict[str, Any]]:
        begun = time.monotonic() if due is None else due
        async with self.connection() as call:
            status, answer = await call(method, path, token, body)
        self.latencies[name].append(time.monotonic() - begun)
        if status >= 400 or (status == 202 and name == "allocate"):
            reason = f"{name} {status} {answer.get('code', answer.get('reason', ''))}"
            self.failures[reason] = self.failures.get(reason, 0) + 1
        return status, answer


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


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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


async def measure(given: argparse.Namespace, load: Load) -> None:
    """The load, and what it met."""
    ends = time.monotonic() + given.seconds
    await asyncio.gather(load.agents(ends), load.clients(given.rate, ends))
    for name, times in load.latencies.items():
        mean_ms = statistics.fmean(times) * 1000 if times else 0.0
        print(
            f"{name:9} {len(times):6} calls, mean {mean_ms:.1f} ms,"
            f" p50 {percentile(times, 0.5):.1f}, p99 {percentile(times, 0.99):.1f} ms"
        )
    print(f"failures: {load.failures or 'none'}")


def list_gpus(folder: Path, port: int, load: Load) -> None:
    """How long a listing of all GPUs takes, as a user types it."""
    environment = {
        **os.environ,
        "OUTBOARD_POOL": f"https://127.0.0.1:{port}",
        "OUTBOARD_TOKEN": load.users[0],
        "OUTBOARD_AUTHORITY": str(folder / "ctl/authority.pem"),
    }
    begun = time.monotonic()
    command = [sys.executable, "-m", "outboard", "gpus", "--json"]
    out = subprocess.run(command, env=environment, check=True, capture_output=True).stdout
    listed = len(json.loads(out)["devices"])
    print(f"outboard gpus: {listed} GPUs in {time.monotonic() - begun:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--devices", type=int, default=8, help="of each node")
    parser.add_argument("--rate", type=float, default=200.0, help="allocate + release a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--database", default="sqlite", help="sqlite, or postgresql://…")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ob-bench-"))
    url = given.database
    if url == "sqlite":
        url = f"sqlite:///{folder}/ledger.sqlite"
    try:
        port, node_tokens, users = prepare(folder, url, given.nodes, given.devices)
        print(
            f"{given.nodes * given.devices} GPUs, {given.rate:g}/s for {given.seconds:g} s, {url}"
        )
        print(f"fsync p99 {fsync_p99_ms(folder):.2f} ms")
        command = [sys.executable, "-m", "outboard.controller", "serve", "--state"]
        controller = subprocess.Popen([*command, str(folder / "ctl")], stderr=subprocess.DEVNULL)
        try:
            _wait_listening(port, controller)
            load = Load(port, str(folder / "ctl/authority.pem"), node_tokens, users)
            before_s = cpu_s(controller.pid)
            asyncio.run(measure(given, load))
            spent_s = cpu_s(controller.pid) - before_s
            print(f"the controller's CPU: {spent_s:.1f} s in {given.seconds:g} s")
            list_gpus(folder, port, load)
        finally:
            controller.terminate()
            controller.wait()
    finally:
        shutil.rmtree(folder)


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
