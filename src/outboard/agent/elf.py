"""Reads the notes of an ELF library, to tell a real driver from our own shim.

SPDX-License-Identifier: Apache-2.0

Only the program headers are read: they survive stripping, and the library is never loaded.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III")
_PT_NOTE = 4
_MOST_NOTE_BYTES = 1 << 20


def note_owners(path: str) -> set[bytes]:
    """The owner names of all notes of a 64-bit little-endian ELF file; empty for anything else."""
    try:
        with open(path, "rb") as file:
            return _owners(file)
    except (OSError, ValueError, struct.error):  # ValueError: an offset beyond any file's
        return set()


def _owners(file: BinaryIO) -> set[bytes]:
    header = _HEADER.unpack(file.read(_HEADER.size))
    if header[0][:6] != b"\x7fELF\x02\x01":
        return set()
    segments_at, segment_bytes, segment_count = header[5], header[9], header[10]
    owners: set[bytes] = set()
    for number in range(segment_count):
        file.seek(segments_at + number * segment_bytes)
        kind, _, offset, _, _, size, _, align = _SEGMENT.unpack(file.read(_SEGMENT.size))
        if kind == _PT_NOTE and size <= _MOST_NOTE_BYTES:
            file.seek(offset)
            owners |= _owners_of_segment(file.read(size), 8 if align == 8 else 4)
    return owners


def _owners_of_segment(data: bytes, align: int) -> set[bytes]:
    owners = set()
    at = 0
    while at + _NOTE.size <= len(data):
        name_bytes, description_bytes, _ = _NOTE.unpack_from(data, at)
        at += _NOTE.size
        owners.add(data[at : at + name_bytes].rstrip(b"\0"))
        at += -(-name_bytes // 4) * 4
        at = -(-at // align) * align + -(-description_bytes // align) * align
    return owners
