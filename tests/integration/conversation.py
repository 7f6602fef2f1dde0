"""A recorded conversation with a worker: read, made valid for another session, spoiled, sent.

SPDX-License-Identifier: Apache-2.0

The file's format is native/client/recorder.hpp's, its frames are native/wire/frame.hpp's.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

MAGIC = b"OBREC1\n\0"
RECORD = struct.Struct("<B3xIQ")
FRAME = struct.Struct("<IHHQQ")
PREFACE = struct.Struct("<4sHH")
TO_SERVER, PREFACE_RECORD = 0, 2
HELLO = 1


@dataclass(frozen=True)
class Conversation:
    """What one program sent: its preface as JSON, and every frame, header included."""

    preface: dict[str, Any]
    frames: list[bytes]


def read_conversation(path: Path) -> Conversation:
    """The client's half of a recording."""
    data = path.read_bytes()
    assert data.startswith(MAGIC), "not a recording"
    at = len(MAGIC)
    preface: dict[str, Any] = {}
    frames: list[bytes] = []
    while at + RECORD.size <= len(data):
        direction, length, _ = RECORD.unpack_from(data, at)
        at += RECORD.size
        content = data[at : at + length]
        at += length
        if direction == PREFACE_RECORD and not preface:
            preface = json.loads(content[PREFACE.size :].decode().rstrip("\0 "))
        elif direction == TO_SERVER:
            frames.append(content)
    assert preface, "the recording has no preface"
    assert len(frames) >= 3, "the recording has no conversation"
    return Conversation(preface, frames)


def process_start_time() -> int:
    """When this process started, as the kernel counts it."""
    return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])


def own_hello(frame: bytes) -> bytes:
    """The hello with this process in the place of the one that was recorded, which is gone."""
    length, kind, reserved, number, acknowledged = FRAME.unpack_from(frame)
    assert kind == HELLO
    hello = json.loads(frame[FRAME.size : FRAME.size + length])
    hello["pid"] = os.getpid()
    hello["start_time"] = process_start_time()
    body = json.dumps(hello, separators=(",", ":")).encode()
    return FRAME.pack(len(body), kind, reserved, number, acknowledged) + body


def preface_bytes(recorded: dict[str, Any], session: dict[str, Any]) -> bytes:
    """A valid preface for a session, as the shim would write it."""
    fields = dict(recorded)
    fields["grant"] = session["grant"]
    fields["nonce"] = secrets.token_hex(16)
    fields["time"] = int(time.time())
    words = ["outboard preface 1"] + [
        str(fields[name]) for name in ("purpose", "grant", "nonce", "time", "worker")
    ]
    key = bytes.fromhex(session["key"])
    fields["proof"] = hmac.new(key, "\n".join(words).encode(), hashlib.sha256).hexdigest()
    body = json.dumps(fields, separators=(",", ":")).encode()
    return PREFACE.pack(b"OUTB", 1, len(body)) + body


def flip_bits(frames: list[bytes], random: Random) -> list[bytes]:
    """One to eight bits anywhere."""
    spoiled = list(frames)
    for _ in range(random.randint(1, 8)):
        which = random.randrange(len(spoiled))
        content = bytearray(spoiled[which])
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        spoiled[which] = bytes(content)
    return spoiled


def flip_early_bits(frames: list[bytes], random: Random) -> list[bytes]:
    """A bit in the first bytes of a frame: its header, or the first command's."""
    spoiled = list(frames)
    which = random.randrange(len(spoiled))
    content = bytearray(spoiled[which])
    content[random.randrange(min(64, len(content)))] ^= 1 << random.randrange(8)
    spoiled[which] = bytes(content)
    return spoiled


def truncate(frames: list[bytes], random: Random) -> list[bytes]:
    """The conversation ends in the middle of a frame."""
    which = random.randrange(len(frames))
    return [*frames[:which], frames[which][: random.randrange(len(frames[which]))]]


def announce_too_much(frames: list[bytes], random: Random) -> list[bytes]:
    """A frame says that it is longer than it is, or than any may be."""
    which = random.randrange(len(frames))
    length = random.choice([1 << 20, (1 << 20) + 8, (1 << 31) - 1, (1 << 32) - 1, 1 << 16])
    content = struct.pack("<I", length) + frames[which][4:]
    return [*frames[:which], content, *frames[which + 1 :]]


def repeat_or_drop(frames: list[bytes], random: Random) -> list[bytes]:
    """A frame comes twice, or not at all, or two change places."""
    spoiled = list(frames)
    which = random.randrange(len(spoiled))
    action = random.randrange(3)
    if action == 0:
        spoiled.insert(which, spoiled[which])
    elif action == 1:
        del spoiled[which]
    else:
        other = random.randrange(len(spoiled))
        spoiled[which], spoiled[other] = spoiled[other], spoiled[which]
    return spoiled


def rubbish(frames: list[bytes], random: Random) -> list[bytes]:
    """Random bytes with a frame's valid header, after a valid beginning."""
    which = random.randrange(1, len(frames))
    _, _, _, number, acknowledged = FRAME.unpack_from(frames[which])
    body = random.randbytes(random.randrange(0, 4096) & ~7)
    return [*frames[:which], FRAME.pack(len(body), 2, 0, number, acknowledged) + body]


SPOILERS = [flip_bits, flip_early_bits, truncate, announce_too_much, repeat_or_drop, rubbish]


def spoiled(frames: list[bytes], seed: int) -> list[bytes]:
    """The frames with one kind of damage, always the same for a seed."""
    random = Random(seed)
    return SPOILERS[seed % len(SPOILERS)](frames, random)


def hold_conversation(
    session: dict[str, Any], preface: bytes, frames: list[bytes], guard_s: float
) -> int:
    """Send everything, say that nothing follows, and read to the end; returns the bytes read.

    Raises `TimeoutError` if the other side neither answers nor ends for `guard_s`.
    """
    host, _, port = session["nodes"][0]["address"].rpartition(":")
    received = 0
    with socket.create_connection((host, int(port)), timeout=guard_s) as connection:
        try:
            connection.sendall(preface + b"".join(frames))
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(1 << 16):
                received += len(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it ended before it had read everything, as it may
    return received
