"""A controller without a ledger: HTTPS, the agent's calls, grants that a test asks for.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from outboard.model.grant import Grant, data_plane_key, seal
from outboard.model.identity import Identity, write_identity
from outboard.model.request import GrantedDevice
from outboard.pki.authority import Authority, write_credential
from outboard.pki.signing import SigningKey

NODE = "gpu1"
TOKEN = "ob_node0001_" + "ab" * 32 + "_0123456789abcdef"


class FakeController:
    """Serves on a loopback port of its own; `stop` and `start` keep the port."""

    def __init__(self, folder: Path) -> None:
        now = dt.datetime.now(dt.UTC)
        self._folder = folder
        self._authority = Authority.create("a pool", now)
        write_credential(str(folder), "server", self._authority.issue_server(["127.0.0.1"], now))
        self.signing = SigningKey.generate()
        self.node_key = os.urandom(32)
        self.port = 0
        self.reports: list[dict[str, Any]] = []
        self.authorization: set[str | None] = set()
        self.inventory: dict[str, Any] = {}
        self.known: dict[str, str] = {}
        self.ending: dict[str, dict[str, Any]] = {}
        self.ended: set[str] = set()
        self.removed = False
        self._changed = threading.Condition()
        self._connections: list[socket.socket] = []
        self._server: ThreadingHTTPServer
        self.start()

    def enrol(self, state: Path) -> None:
        """Leave in an agent's state folder what enrolment does."""
        state.mkdir(mode=0o700, exist_ok=True)
        identity = Identity(
            name=NODE,
            token=TOKEN,
            node_key=self.node_key.hex(),
            authority_pem=self._authority.credential.certificate_pem.decode(),
            controllers=(f"https://127.0.0.1:{self.port}",),
            keys=(self.signing.public.hex(),),
        )
        write_identity(str(state), identity)

    def start(self) -> None:
        controller = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                controller.authorization.add(self.headers["Authorization"])
                status, answer = controller._answer(self.path, body)
                data = json.dumps(answer).encode()
                with contextlib.suppress(OSError):  # an agent that was killed hears no answer
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            def setup(self) -> None:
                controller._connections.append(self.request)
                super().setup()

            def log_request(self, *_: object) -> None: ...

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._folder / "server.pem", self._folder / "server.key")
        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        server.daemon_threads = True
        server.block_on_close = False
        server.socket = context.wrap_socket(server.socket, server_side=True)
        self.port = server.server_address[1]
        self._server = server
        self._stopping = False
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._stopping = True
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:
            with contextlib.suppress(OSError):  # it has ended by itself
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()
        with self._changed:
            self._changed.notify_all()

    def session(self, name: str, allocation: str, *, epoch: int = 1, lifetime_s: int = 600) -> Any:
        """What a session file says of a grant, as `fakes.program` takes it, but for the address."""
        devices = (GrantedDevice(NODE, 0, 300 << 20),)
        expires = int(time.time()) + lifetime_s
        text = seal(Grant(name, allocation, epoch, NODE, devices, 0, expires), self.signing)
        self.known[name] = allocation
        address = self.inventory["address"]
        return {
            "nodes": [{"name": NODE, "address": address, "tls": "none"}],
            "grant": text,
            "key": data_plane_key(self.node_key, text).hex(),
        }

    def end(self, name: str, reason: str) -> None:
        """Order the agent to end a session."""
        allocation = self.known.pop(name)
        order = {"session": name, "allocation": allocation, "reason": reason, "remember_s": 1200}
        with self._changed:
            self.ending[allocation] = order
            self._changed.notify_all()

    def _answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.removed:
            return 403, {"code": "node_removed", "detail": "this server was removed"}
        if path == f"/v1/nodes/{NODE}/report":
            return 200, self._report(body)
        if path == f"/v1/nodes/{NODE}/orders":
            with self._changed:
                self._changed.wait_for(lambda: self._orders(body["known"]) or self._stopping, 5)
                return 200, {"end": self._orders(body["known"])}
        return 404, {"code": "not_found", "detail": path}

    def _orders(self, known: list[str]) -> list[dict[str, Any]]:
        return [order for name, order in self.ending.items() if name not in known]

    def _report(self, body: dict[str, Any]) -> dict[str, Any]:
        self.inventory = body.get("inventory", self.inventory)
        for allocation in body["ended"]:
            self.ending.pop(allocation, None)
            self.ended.add(allocation)
        unknown = [
            {**_named(session), "reason": "the pool does not know it", "remember_s": 1200}
            for session in body["sessions"]
            if self.known.get(session["session"]) != session["allocation"]
            and session["allocation"] not in self.ending
        ]
        self.reports.append(body)
        return {
            "keys": [self.signing.public.hex()],
            "report_every_s": 0.2,
            "want_inventory": not self.inventory,
            "end": [*self.ending.values(), *unknown],
        }


def _named(session: dict[str, Any]) -> dict[str, Any]:
    return {name: session[name] for name in ("session", "allocation")}
