"""The preface: the first bytes of every data-plane connection, read, checked, refused.

SPDX-License-Identifier: Apache-2.0

Format in docs/internals/session.md §3. Everything here comes from whoever can reach the port.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from dataclasses import dataclass

from outboard.errors import Refusal

MAGIC = b"OUTB"
REFUSAL_MAGIC = b"OUTE"
VERSION = 1
HEAD = struct.Struct("<4sHH")
LARGEST_PREFACE_BYTES = 4096
CLOCK_TOLERANCE_S = 300

_HEX = set("0123456789abcdef")
# Connections of programs that were let in before, by their command connection.
JOINING = ("bulk", "memory")
NEXT = "use the Outboard client of this release"


@dataclass(frozen=True, slots=True)
class Preface:
    """What a connecting client says of itself; nothing in it is proven before `verify_proof`."""

    purpose: str
    release: str
    protocol: str
    grant: str
    nonce: str
    time: int
    worker: str
    proof: str


def body_bytes(head: bytes) -> int:
    """The length of the JSON that follows the 8 bytes of the head."""
    magic, version, length = HEAD.unpack(head)
    if magic != MAGIC:
        raise Refusal("malformed", "this port speaks Outboard's data plane alone", NEXT)
    if version != VERSION:
        raise Refusal(
            "version", f"preface version {version}; this agent reads version {VERSION}", NEXT
        )
    if not 2 <= length <= LARGEST_PREFACE_BYTES - HEAD.size:
        raise Refusal("malformed", f"a preface of {length} bytes", NEXT)
    return int(length)


def parse_preface(body: bytes) -> Preface:
    """The preface in its JSON; raises `Refusal` naming the field that is wrong."""
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal("malformed", "the preface is not JSON", NEXT) from None
    if not isinstance(record, dict):
        raise Refusal("malformed", "the preface is not an object", NEXT)
    purpose = _text(record, "purpose", 16)
    if purpose not in ("command", *JOINING):
        raise Refusal("malformed", "purpose is not command, bulk or memory", NEXT)
    time = record.get("time")
    if not isinstance(time, int) or isinstance(time, bool) or not 0 <= time < 1 << 40:
        raise Refusal("malformed", "time is not a number of seconds", NEXT)
    return Preface(
        purpose=purpose,
        release=_text(record, "release", 32),
        protocol=_hex(record, "protocol", 64),
        grant=_text(record, "grant", 3072),
        nonce=_hex(record, "nonce", 32),
        time=time,
        worker=_hex(record, "worker", 32) if purpose in JOINING else "",
        proof=_hex(record, "proof", 64),
    )


def proof_of(key: bytes, preface: Preface) -> str:
    """What a client that has the key writes as `proof`."""
    message = "\n".join(
        (
            "outboard preface 1",
            preface.purpose,
            preface.grant,
            preface.nonce,
            str(preface.time),
            preface.worker,
        )
    )
    return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()


def verify_proof(key: bytes, preface: Preface, now_unix: float) -> None:
    """Raise `Refusal` unless the client has the key and said so just now."""
    if not hmac.compare_digest(proof_of(key, preface), preface.proof):
        raise Refusal(
            "proof",
            "the key of this session file does not fit its grant",
            "start a new session: outboard run -n 1 -- COMMAND",
        )
    apart_s = abs(now_unix - preface.time)
    if apart_s > CLOCK_TOLERANCE_S:
        raise Refusal(
            "proof",
            f"the clocks of client and server are {int(apart_s)} s apart",
            "set both clocks (timedatectl set-ntp true)",
        )


def refusal_bytes(refusal: Refusal) -> bytes:
    """The answer to a connection that no worker gets."""
    record = {"code": refusal.code, "message": refusal.message, "hint": refusal.hint}
    body = json.dumps(record, ensure_ascii=False).encode()
    return HEAD.pack(REFUSAL_MAGIC, VERSION, len(body)) + body


class Nonces:
    """The nonces of the last minutes: a preface that was overheard cannot be used again."""

    def __init__(self, most: int = 65536) -> None:
        self._seen: dict[str, float] = {}
        self._most = most

    def use(self, nonce: str, now_unix: float) -> None:
        """Remember a nonce; raises `Refusal` if it was used, or if too many are remembered."""
        if nonce in self._seen:
            raise Refusal("proof", "this connection attempt was seen before", "connect again")
        # Insertion order is time order, so the old ones are at the front.
        for old, seen_unix in list(self._seen.items())[:64]:
            if now_unix - seen_unix <= 2 * CLOCK_TOLERANCE_S:
                break
            del self._seen[old]
        if len(self._seen) >= self._most:
            raise Refusal("busy", "too many connections within ten minutes", "try again later")
        self._seen[nonce] = now_unix


def _text(record: dict[str, object], name: str, most: int) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isascii():
        raise Refusal("malformed", f"{name} is missing, too long or not ASCII", NEXT)
    return value


def _hex(record: dict[str, object], name: str, digits: int) -> str:
    value = _text(record, name, digits)
    if len(value) != digits or not _HEX.issuperset(value):
        raise Refusal("malformed", f"{name} is not {digits} hexadecimal digits", NEXT)
    return value
