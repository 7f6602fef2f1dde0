"""Asks a service on its socket, as `outboard status` and its like do.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import socket

from outboard.errors import ServiceNotRunning, error_from_problem
from outboard.service.folders import ServiceFolders

ANSWER_TIMEOUT_S = 30.0
_LARGEST_ANSWER_BYTES = 1 << 20


def ask(folders: ServiceFolders, want: str, **fields: object) -> dict[str, object]:
    """One request and its answer; raises `ServiceNotRunning`, or what the service says."""
    request = {"version": 1, "want": want, **fields}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(ANSWER_TIMEOUT_S)
            connection.connect(folders.socket)
            connection.sendall(json.dumps(request).encode() + b"\n")
            answer = _receive(connection)
        except PermissionError as error:
            raise ServiceNotRunning(
                f"the GPU service {folders.name} is not for this user",
                "ask who administers this machine",
            ) from error
        except (OSError, ValueError) as error:
            raise ServiceNotRunning(
                f"the GPU service {folders.name} is not running",
                f"start it: {folders.systemctl('start')}",
            ) from error
    if "error" in answer:
        problem = {**answer, "code": answer["error"], "detail": answer.get("message")}
        raise error_from_problem(problem, 503)
    return answer


def _receive(connection: socket.socket) -> dict[str, object]:
    data = b""
    while b"\n" not in data:
        more = connection.recv(65536)
        if not more or len(data) > _LARGEST_ANSWER_BYTES:
            raise ConnectionResetError("closed by the service")
        data += more
    answer = json.loads(data.partition(b"\n")[0])
    if not isinstance(answer, dict):
        raise ValueError("the answer is not an object")
    return answer
