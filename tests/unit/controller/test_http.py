"""The pool's API on its socket: one shape of errors, and hostile requests.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from outboard.client.http import PoolConnection
from outboard.errors import NotFound
from tests.unit.conftest import Outboard


@pytest.fixture
def pool(shared_outboard: Outboard) -> str:
    """The path of a running pool's socket."""
    assert shared_outboard("gpus").returncode == 0
    return str(shared_outboard.runtime / "pool.sock")


def exchange(path: str, data: bytes) -> tuple[int, dict[str, Any]]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(path)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR) if not data else None
        head, _, body = connection.makefile("rb").read1(65536).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def request(path: str, body: object) -> tuple[int, dict[str, Any]]:
    data = json.dumps(body).encode()
    head = f"POST /v1/requests HTTP/1.1\r\nContent-Length: {len(data)}\r\n\r\n"
    return exchange(path, head.encode() + data)


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "malformed_request"),
        (b"GET /v1/status FTP/1\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\n{x}", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 4000, 400, "malformed_request"),
        (b"GET /nowhere HTTP/1.1\r\n\r\n", 404, "not_found"),
        (b"PUT /v1/status HTTP/1.1\r\n\r\n", 404, "not_found"),
        (b"DELETE /v1/sessions/s-1 HTTP/1.1\r\n\r\n", 404, "not_found"),
        (b"POST /v1/sessions/s-1/renew HTTP/1.1\r\n\r\n", 404, "not_found"),
    ],
)
def test_errors_have_one_shape(pool: str, data: bytes, status: int, code: str) -> None:
    got, problem = exchange(pool, data)
    assert (got, problem["status"], problem["code"]) == (status, status, code)
    assert set(problem) == {"type", "title", "status", "detail", "code", "hint", "request_id"}


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"id": "x", "gpus": 1},
        {"id": "0" * 32},
        {"id": "0" * 32, "gpus": 0},
        {"id": "0" * 32, "gpus": "1"},
        {"id": "0" * 32, "gpus": True},
        {"id": "0" * 32, "gpus": 1, "more": 1},
        {"id": "0" * 32, "gpus": 1, "wait_s": -1},
        {"id": "0" * 32, "gpus": 1, "wait_s": "1"},
        {"id": "0" * 32, "gpus": 1, "share": 1},
        {"id": "0" * 32, "gpus": 1, "share": {"millionths": 0}},
        {"id": "0" * 32, "gpus": 1, "share": {"millionths": 1, "bytes": 1}},
        {"id": "0" * 32, "gpus": 1, "share": {"bytes": 1.5}},
    ],
)
def test_a_malformed_request_is_refused(pool: str, body: object) -> None:
    status, problem = request(pool, body)
    assert (status, problem["code"]) == (400, "malformed_request")


def test_requests_follow_each_other_on_one_connection(pool: str) -> None:
    connection = PoolConnection.over_unix(pool)
    assert connection.call("GET", "/healthz") == {"ok": True}
    with pytest.raises(NotFound):
        connection.call("GET", "/nowhere")
    assert connection.call("GET", "/v1/status")["sessions"] == 0
    connection.close()


def test_a_repeated_request_gets_the_same_grant(pool: str) -> None:
    body: dict[str, object] = {"id": "1" * 32, "gpus": 1, "share": {"bytes": 100 << 20}}
    first, second = PoolConnection.over_unix(pool), PoolConnection.over_unix(pool)
    one = first.call("POST", "/v1/requests", body)
    two = second.call("POST", "/v1/requests", body)
    assert one["allocation"] == two["allocation"]
    assert first.call("GET", "/v1/status")["sessions"] == 1
    first.close()
    second.close()


def test_a_renewed_grant_is_of_the_same_session(pool: str) -> None:
    connection = PoolConnection.over_unix(pool)
    body: dict[str, object] = {"id": "1" * 32, "gpus": 1}
    first = connection.call("POST", "/v1/requests", body)["session"]
    assert isinstance(first, dict)
    renewed = connection.call("POST", f"/v1/sessions/{first['session']}/renew")["session"]
    assert isinstance(renewed, dict)
    assert renewed["session"] == first["session"]
    assert renewed["devices"] == first["devices"]
    connection.close()


def test_an_odd_program_name_breaks_no_listing(pool: str) -> None:
    connection = PoolConnection.over_unix(pool)
    body: dict[str, object] = {"id": "1" * 32, "gpus": 1, "program": "a\x1b[2J\nb\ud800"}
    connection.call("POST", "/v1/requests", body)
    sessions = connection.call("GET", "/v1/sessions")["sessions"]
    assert isinstance(sessions, list)
    assert sessions[0]["program"] == "a?[2J?b?"
    connection.close()
