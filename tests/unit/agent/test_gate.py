"""The data plane's door, knocked at by all kinds of clients.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.conftest import HANG_GUARD_S, Outboard, eventually
from tests.unit.fakes import program


@pytest.fixture
def session(outboard: Outboard) -> Iterator[dict[str, Any]]:
    """The content of a session file whose session lives as long as the test."""
    launcher = outboard.start("run", "-m", "300", "sh", "-c", 'cat "$OUTBOARD_SESSION"; read line')
    assert launcher.stdout is not None
    content = json.loads(launcher.stdout.readline())
    assert isinstance(content, dict)
    yield content
    launcher.communicate("\n")


def answer(session: dict[str, Any], data: bytes) -> bytes:
    """All that comes back for these bytes, until the end or the welcome's line."""
    with program.connect(session, data) as connection:
        connection.settimeout(HANG_GUARD_S)
        received = b""
        while not (received.startswith(b"OUTW") and received.endswith(b"\n")):
            more = connection.recv(65536)
            if not more:
                break
            received += more
        return received


def refusal(session: dict[str, Any], data: bytes) -> dict[str, str]:
    return read_refusal(answer(session, data))


def read_refusal(received: bytes) -> dict[str, str]:
    magic, version, length = struct.unpack("<4sHH", received[:8])
    assert (magic, version, length) == (b"OUTE", 1, len(received) - 8)
    told = json.loads(received[8:])
    assert set(told) == {"code", "message", "hint"}
    assert isinstance(told, dict)
    return told


def test_what_follows_the_preface_is_the_workers(session: dict[str, Any]) -> None:
    with program.connect(session, program.preface(session) + b"ping\n") as connection:
        answers = connection.makefile("rb")
        assert answers.readline().startswith(b"OUTW")
        assert answers.readline() == b"pong\n"


def test_a_preface_in_pieces_is_read(session: dict[str, Any]) -> None:
    data = program.preface(session)
    with program.connect(session, data[:3]) as connection:
        for byte in data[3:]:
            connection.send(bytes([byte]))
        assert connection.recv(4) == b"OUTW"


def test_a_preface_cannot_be_used_twice(session: dict[str, Any]) -> None:
    data = program.preface(session)
    assert answer(session, data).startswith(b"OUTW")
    assert refusal(session, data)["code"] == "proof"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"proof": "0" * 64}, "proof"),
        ({"grant": "abc.def"}, "grant"),
        ({"time": 1}, "proof"),
        ({"purpose": "bulk", "worker": "0" * 32}, "no_worker"),
        ({"purpose": "steal"}, "malformed"),
        ({"purpose": "memory", "worker": "0" * 32}, "malformed"),
    ],
)
def test_a_wrong_preface_is_refused(
    session: dict[str, Any], changes: dict[str, Any], code: str
) -> None:
    assert refusal(session, program.preface(session, **changes))["code"] == code


def test_another_protocol_is_refused_naming_both_releases(session: dict[str, Any]) -> None:
    told = refusal(session, program.preface(session, protocol="cd" * 32, release="9.9"))
    assert told["code"] == "version"
    assert "release 9.9 (protocol cdcdcdcdcdcd)" in told["message"]
    assert "release 0.1.0 (protocol abababababab)" in told["message"]


def test_what_is_no_preface_is_refused_in_its_words(session: dict[str, Any]) -> None:
    assert refusal(session, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")["code"] == "malformed"


def test_a_silent_client_is_dropped(session: dict[str, Any]) -> None:
    started = time.monotonic()
    assert answer(session, b"OUTB") == b""
    print(f"dropped after {time.monotonic() - started:.1f} s")


def test_a_bulk_connection_goes_to_the_worker_of_its_client(session: dict[str, Any]) -> None:
    with program.connect(session, program.preface(session)) as command:
        welcome = json.loads(command.makefile("rb").readline().removeprefix(b"OUTW"))
        data = program.preface(session, purpose="bulk", worker=welcome["id"])
        with program.connect(session, data) as bulk:
            assert bulk.recv(64) == b"bulk here\n"


def test_memory_comes_by_the_socket_of_this_machine(session: dict[str, Any]) -> None:
    with program.connect(session, program.preface(session)) as command:
        welcome = json.loads(command.makefile("rb").readline().removeprefix(b"OUTW"))
        data = program.preface(session, purpose="memory", worker=welcome["id"])
        with program.connect_locally(welcome["claim"]["memory_socket"], data) as memory:
            assert memory.recv(64) == b"memory here\n"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"proof": "0" * 64}, "proof"),
        ({}, "no_worker"),
        ({"purpose": "bulk"}, "malformed"),
        ({"purpose": "command", "worker": ""}, "malformed"),
    ],
)
def test_the_socket_of_this_machine_is_for_memory_of_programs_that_were_let_in(
    session: dict[str, Any], changes: dict[str, Any], code: str
) -> None:
    with program.connect(session, program.preface(session)) as command:
        welcome = json.loads(command.makefile("rb").readline().removeprefix(b"OUTW"))
        fields = {"purpose": "memory", "worker": "0" * 32} | changes
        data = program.preface(session, **fields)
        with program.connect_locally(welcome["claim"]["memory_socket"], data) as memory:
            received = b"".join(iter(lambda: memory.recv(65536), b""))
    assert read_refusal(received)["code"] == code


def test_each_program_has_a_slot_and_gives_it_back(
    session: dict[str, Any], outboard: Outboard
) -> None:
    def slot(connection: socket.socket) -> int:
        with connection.makefile("rb") as answers:
            line = answers.readline()
        return int(json.loads(line.removeprefix(b"OUTW"))["claim"]["slot"])

    def programs() -> int:
        return int(json.loads(outboard("sessions", "--json").stdout)["sessions"][0]["programs"])

    with program.connect(session, program.preface(session)) as first:
        assert slot(first) == 0
        with program.connect(session, program.preface(session)) as second:
            assert slot(second) == 1
            first.close()
            eventually(lambda: programs() == 1, "the first program's end is noticed")
            with program.connect(session, program.preface(session)) as third:
                assert slot(third) == 0


def test_an_ended_session_is_refused(outboard: Outboard) -> None:
    done = outboard("run", "sh", "-c", 'cat "$OUTBOARD_SESSION"')
    session = json.loads(done.stdout)
    assert refusal(session, program.preface(session))["code"] == "ended"
