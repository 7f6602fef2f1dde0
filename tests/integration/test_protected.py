"""Programs over TLS: through controller, agent and worker as machines of a network meet them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.integration.harness import (
    Native,
    Outcome,
    Running,
    clean_environment,
    eventually,
    run_program,
)
from tests.unit.controller.site import Site, new_site

MIB = 1 << 20


@pytest.fixture
def site(native: Native) -> Iterator[Site]:
    with new_site(native.root) as made:
        made.add_agent("gpu1")
        yield made


class Session:
    """A granted session and its file."""

    def __init__(self, site: Site, native: Native, share_bytes: int = 300 * MIB) -> None:
        self.granted = site.grant([("gpu1", 0, share_bytes)])
        self.content: dict[str, Any] = site.session(self.granted)
        self._path = site.folder / f"{self.granted.session}.json"
        self._native = native
        self._site = site

    @property
    def environment(self) -> dict[str, str]:
        self._path.touch(mode=0o600)
        self._path.write_text(json.dumps(self.content))
        return clean_environment(self._site.folder) | {
            "LD_LIBRARY_PATH": str(self._native.shim),
            "OUTBOARD_SESSION": str(self._path),
        }

    def run(self, program: str, *words: str) -> Outcome:
        return run_program([self._native.program(program), *words], self.environment)


class Tap:
    """A relay in front of a server that keeps what passes, both ways."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.seen = bytearray()
        self.corrupt = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(near,), daemon=True).start()

    def _relay(self, near: socket.socket) -> None:
        host, _, port = self._target.rpartition(":")
        with near, socket.create_connection((host, int(port))) as far:
            back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
            back.start()
            self._pump(near, far)
            back.join()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self.seen += data
                if self.corrupt:
                    data = data[:-1] + bytes([data[-1] ^ 1])
                target.sendall(data)
        except OSError:
            pass  # one side has gone: so does the other
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("program", ["matrixMul", "streams", "reduction", "uploadOrder"])
def test_programs_compute_the_same_over_tls(site: Site, native: Native, program: str) -> None:
    session = Session(site, native)
    assert session.content["nodes"][0]["tls"] == "psk"
    outcome = session.run(program)
    assert outcome.returncode == 0, outcome.describe()


def test_nothing_of_a_program_can_be_read_on_the_way(site: Site, native: Native) -> None:
    session = Session(site, native)
    tap = Tap(session.content["nodes"][0]["address"])
    session.content["nodes"][0]["address"] = tap.address
    outcome = session.run("matrixMul")
    assert outcome.returncode == 0, outcome.describe()
    # The preface is in the clear. Names of kernels, the hello's fields and the welcome are not.
    assert b'"grant"' in tap.seen
    for secret in (b"matrixMul", b"OUTW", b"start_time", session.content["key"].encode()):
        assert secret not in tap.seen, secret
    tap.close()


def test_another_key_gets_no_worker(site: Site, native: Native) -> None:
    session = Session(site, native)
    session.content["key"] = "0" * 64
    outcome = session.run("matrixMul")
    assert outcome.returncode != 0
    assert "the key of this session file does not fit its grant" in outcome.stderr


def test_bytes_changed_on_the_way_end_the_program_with_an_error(site: Site, native: Native) -> None:
    session = Session(site, native)
    tap = Tap(session.content["nodes"][0]["address"])
    session.content["nodes"][0]["address"] = tap.address
    program = Running([native.program("longLoop")], session.environment)
    try:
        program.read_until("READY")
        tap.corrupt = True
        assert program.read_until("ERROR") == "ERROR 46 cudaErrorDevicesUnavailable"
        assert program.finish().returncode == 1
    finally:
        program.stop()
        tap.close()


def test_a_program_outlives_agent_and_controller_killed_with_9(site: Site, native: Native) -> None:
    session = Session(site, native)
    agent = site.agents["gpu1"]
    program = Running([native.program("longLoop")], session.environment)
    try:
        program.read_until("READY")
        agent.end(signal.SIGKILL)
        site.stop()
        site.start()
        agent.start()
        eventually("the worker has called", lambda: "adopted" in agent.log())
        # Large copies of a second program of the session take connections of their own.
        outcome = session.run("uploadOrder")
        assert outcome.returncode == 0, outcome.describe()
        assert program.process.poll() is None
        site.end(session.granted, "released")
        assert program.read_until("ERROR") == "ERROR 46 cudaErrorDevicesUnavailable"
        eventually("its bytes are free", lambda: site.state(session.granted) == "ended")
        assert "released" in program.finish().stderr
    finally:
        program.stop()
