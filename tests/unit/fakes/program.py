"""A program of a session, in Python: what the shim does until a worker has it.

SPDX-License-Identifier: Apache-2.0

`python program.py LINE…` connects as `$OUTBOARD_SESSION` says, prints the worker's welcome, sends
each LINE and prints each answer; the word `wait` waits until the worker ends the connection.
"""

import hashlib
import hmac
import json
import os
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

PROTOCOL = "ab" * 32


def preface(session: dict[str, Any], **changes: Any) -> bytes:
    """The first bytes of a connection; `changes` replace fields before or after the proof."""
    key = bytes.fromhex(session["key"])
    record = {
        "purpose": "command",
        "release": "0.1.0",
        "protocol": PROTOCOL,
        "grant": session["grant"],
        "nonce": os.urandom(16).hex(),
        "time": int(time.time()),
        "worker": "",
    }
    record.update(changes)
    parts = ["outboard preface 1", *(str(record[name]) for name in ("purpose", "grant", "nonce"))]
    message = "\n".join([*parts, str(record["time"]), str(record["worker"])])
    record.setdefault("proof", hmac.new(key, message.encode(), hashlib.sha256).hexdigest())
    body = json.dumps(record).encode()
    return struct.pack("<4sHH", b"OUTB", 1, len(body)) + body


def connect(session: dict[str, Any], data: bytes) -> socket.socket:
    host, _, port = session["nodes"][0]["address"].rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(data)
    return connection


def connect_locally(name: str, data: bytes) -> socket.socket:
    """To the agent's socket for shared memory, which has an abstract name."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(20)
    connection.connect(b"\0" + name.encode())
    connection.sendall(data)
    return connection


def main() -> None:
    session = json.loads(Path(os.environ["OUTBOARD_SESSION"]).read_text(encoding="utf-8"))
    connection = connect(session, preface(session))
    answers = connection.makefile("rb")
    print(answers.readline().decode("utf-8", "replace").rstrip(), flush=True)
    for line in sys.argv[1:]:
        if line != "wait":
            connection.sendall(line.encode() + b"\n")
        print(answers.readline().decode("utf-8", "replace").rstrip(), flush=True)


if __name__ == "__main__":
    main()
