#!/usr/bin/env python3
"""Plays the agent for tests: one session, a worker for every process of COMMAND that connects.

    mini_agent.py --worker BIN --driver LIB [--shim DIR] [--share-mib N] [--devices N] -- COMMAND…

Exits with COMMAND's code, or with 99 where a worker ended by a signal or broke off.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

SHARE_MAGIC = 0x3147504853424F4F
SHARE_BYTES = 64 << 10
SLOTS = 256


@dataclass
class Worker:
    """One worker process and the agent's end of its control socket."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    name: str


@dataclass
class Agent:
    """Accepts connections, checks their prefaces, hands the sockets to workers."""

    options: argparse.Namespace
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    grant: str = field(default_factory=lambda: f"test.{secrets.token_hex(8)}")
    workers: dict[str, Worker] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    share_page: int = -1

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.share_page = os.memfd_create("outboard-share")
        os.ftruncate(self.share_page, SHARE_BYTES)
        limits = [self.options.share_mib << 20] * self.options.devices
        header = struct.pack("<3Q", SHARE_MAGIC, self.options.devices, SLOTS)
        os.pwrite(self.share_page, header, 0)
        os.pwrite(self.share_page, struct.pack(f"<{len(limits)}Q", *limits), 64)

    def write_session(self, path: Path) -> None:
        """The inline form, readable by its owner alone."""
        port = self.listener.getsockname()[1]
        devices = [
            {"node": 0, "index": i, "uuid": "", "name": "", "share_bytes": self.share_bytes}
            for i in range(self.options.devices)
        ]
        document = {
            "version": 1,
            "session": "s-test",
            "form": "inline",
            "nodes": [{"name": "mini", "address": f"127.0.0.1:{port}", "tls": "none"}],
            "grant": self.grant,
            "key": self.key.hex(),
            "devices": devices,
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(document))

    @property
    def share_bytes(self) -> int:
        return int(self.options.share_mib) << 20

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._admit, args=(connection,), daemon=True).start()

    def _admit(self, connection: socket.socket) -> None:
        connection.settimeout(2)
        try:
            head = _receive(connection, 8)
            length = struct.unpack("<H", head[6:8])[0]
            preface = json.loads(_receive(connection, length))
        except (OSError, ValueError):
            connection.close()
            return
        connection.settimeout(None)
        refusal = self._check(head, preface)
        if refusal is None:
            refusal = self._hand_over(connection, preface)
        if refusal is not None:
            text = json.dumps({"code": refusal, "message": f"refused: {refusal}", "hint": ""})
            connection.sendall(b"OUTE" + struct.pack("<HH", 1, len(text)) + text.encode())
        connection.close()

    def _check(self, head: bytes, preface: dict[str, object]) -> str | None:
        if head[:4] != b"OUTB" or head[4:6] != b"\x01\0":
            return "malformed"
        if preface["grant"] != self.grant:
            return "grant"
        names = ("purpose", "grant", "nonce", "time", "worker")
        text = "\n".join(["outboard preface 1", *(str(preface[name]) for name in names)])
        proof = hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()
        return None if hmac.compare_digest(proof, str(preface["proof"])) else "proof"

    def _hand_over(self, connection: socket.socket, preface: dict[str, object]) -> str | None:
        if preface["purpose"] == "command":
            worker, slot = self._start()
            ready = json.loads(worker.control.recv(32 << 10) or b'{"type": "failed"}')
            if ready["type"] != "ready":
                print(f"mini_agent: {ready}", file=sys.stderr)
                return "no_worker"
            if ready["protocol"] != preface["protocol"]:
                return "version"
            devices = [
                {"index": i, "share_bytes": self.share_bytes} for i in range(self.options.devices)
            ]
            claim = {"type": "claim", "session": "s-test", "devices": devices, "slot": slot}
            _send(worker.control, claim, [connection.fileno(), self.share_page])
            return None
        worker_or_none = self.workers.get(str(preface["worker"]))
        if worker_or_none is None:
            return "no_worker"
        _send(worker_or_none.control, {"type": "bulk"}, [connection.fileno()])
        return None

    def _start(self) -> tuple[Worker, int]:
        name = secrets.token_hex(16)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.set_inheritable(theirs.fileno(), True)
        process = subprocess.Popen(
            [
                *self.options.prefix.split(),
                self.options.worker,
                "--driver",
                self.options.driver,
                "--control-fd",
                str(theirs.fileno()),
                "--id",
                name,
            ],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        worker = Worker(process, ours, name)
        with self.lock:
            self.workers[name] = worker
            return worker, len(self.workers) - 1

    def finish(self, wait_s: float) -> bool:
        """Waits for the workers to end by themselves; false if one did not end well."""
        good = True
        for worker in self.workers.values():
            try:
                code = worker.process.wait(wait_s)
            except subprocess.TimeoutExpired:
                print(f"mini_agent: worker {worker.name} did not end", file=sys.stderr)
                worker.process.kill()
                worker.process.wait()
                good = False
                continue
            if code != 0:
                print(f"mini_agent: worker {worker.name} ended with {code}", file=sys.stderr)
            good = good and code >= 0
        return good


def _receive(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        piece = connection.recv(count - len(content))
        if not piece:
            raise OSError("ended early")
        content += piece
    return content


def _send(control: socket.socket, message: dict[str, object], fds: list[int]) -> None:
    socket.send_fds(control, [json.dumps(message).encode()], fds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worker", required=True, type=os.path.abspath)
    parser.add_argument("--driver", required=True, type=os.path.abspath)
    parser.add_argument("--shim", type=os.path.abspath, help="put first in LD_LIBRARY_PATH")
    parser.add_argument("--share-mib", type=int, default=1024)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--prefix", default="", help="what the worker runs under (gdb, valgrind)")
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


def main() -> int:
    options = _options()
    agent = Agent(options)
    threading.Thread(target=agent.serve, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="outboard-test-") as folder:
        path = Path(folder) / "session.json"
        agent.write_session(path)
        environment = {**os.environ, "OUTBOARD_SESSION": str(path)}
        if options.shim:
            libraries = [options.shim, environment.get("LD_LIBRARY_PATH", "")]
            environment["LD_LIBRARY_PATH"] = ":".join(entry for entry in libraries if entry)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = subprocess.run(options.command, env=environment, check=False).returncode
        agent.listener.close()
        good = agent.finish(20)
    if not good:
        return 99
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
