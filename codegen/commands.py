"""The commands of the wire: their fields, their layout, and the hash that names them all.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from codegen.documents import read_toml
from codegen.errors import SpecError
from codegen.traits import read_traits

# Changes when the meaning of the bytes changes although no command does (padding, length prefixes).
ENCODING_VERSION = 1

CLASSES = ("async", "sync", "deferred")
ALIGNMENT_BYTES = 8


@dataclass(frozen=True)
class FieldType:
    """A type that a command's field can have."""

    name: str
    cpp: str
    size_bytes: int  # of the field, or of one element where `variable`
    align_bytes: int
    variable: bool = False


FIELD_TYPES: Mapping[str, FieldType] = {
    kind.name: kind
    for kind in (
        FieldType("u8", "uint8_t", 1, 1),
        FieldType("u16", "uint16_t", 2, 2),
        FieldType("u32", "uint32_t", 4, 4),
        FieldType("u64", "uint64_t", 8, 8),
        FieldType("i32", "int32_t", 4, 4),
        FieldType("i64", "int64_t", 8, 8),
        FieldType("f32", "float", 4, 4),
        FieldType("f64", "double", 8, 8),
        FieldType("id", "uint64_t", 8, 8),
        FieldType("addr", "uint64_t", 8, 8),
        FieldType("hash", "std::array<uint8_t, 32>", 32, 1),
        FieldType("bytes", "std::span<const std::byte>", 1, 1, variable=True),
        FieldType("string", "std::string_view", 1, 1, variable=True),
        FieldType("list<u32>", "std::span<const uint32_t>", 4, 4, variable=True),
        FieldType("list<u64>", "std::span<const uint64_t>", 8, 8, variable=True),
    )
}


@dataclass(frozen=True)
class Field:
    """A named field of a command or of its reply."""

    name: str
    type: FieldType


@dataclass(frozen=True)
class Placed:
    """A fixed field, or the reserved bytes that align the next one, at its offset in the block."""

    name: str
    cpp: str
    offset_bytes: int
    reserved: bool = False


@dataclass(frozen=True)
class Message:
    """What one command or one reply consists of: a block of fixed fields, then variable ones."""

    fields: tuple[Field, ...]

    @property
    def variable(self) -> tuple[Field, ...]:
        """The length-prefixed fields, in declaration order; they follow the fixed block."""
        return tuple(field for field in self.fields if field.type.variable)

    @property
    def placed(self) -> tuple[Placed, ...]:
        """The fixed block: declared order, natural alignment, padded to 8 by named members."""
        placed: list[Placed] = []
        offset = 0
        for field in self.fields:
            if field.type.variable:
                continue
            offset = _pad(placed, offset, field.type.align_bytes)
            placed.append(Placed(field.name, field.type.cpp, offset))
            offset += field.type.size_bytes
        _pad(placed, offset, ALIGNMENT_BYTES)
        return tuple(placed)

    @property
    def fixed_bytes(self) -> int:
        """Size of the fixed block, a multiple of 8."""
        size = 0
        for field in self.fields:
            if not field.type.variable:
                size = _round_up(size, field.type.align_bytes) + field.type.size_bytes
        return _round_up(size, ALIGNMENT_BYTES)

    def offset(self, name: str) -> int:
        """Offset of a fixed field within the block; raises KeyError if there is none."""
        for placed in self.placed:
            if placed.name == name and not placed.reserved:
                return placed.offset_bytes
        raise KeyError(name)


@dataclass(frozen=True)
class Command:
    """One command of the data plane."""

    name: str
    group: str
    klass: str
    stream: str | None
    request: Message
    reply: Message
    traits: tuple[str, ...]

    @property
    def answered(self) -> bool:
        """Whether the worker answers it at all."""
        return self.klass != "async"

    @property
    def stream_offset(self) -> int:
        """Offset of the stream's id in the fixed block, or -1: not ordered on a stream."""
        return -1 if self.stream is None else self.request.offset(self.stream)


def _round_up(value: int, multiple: int) -> int:
    return (value + multiple - 1) // multiple * multiple


def _pad(placed: list[Placed], offset: int, align: int) -> int:
    """Appends reserved members until `offset` is aligned; returns the aligned offset."""
    aligned = _round_up(offset, align)
    if aligned != offset:
        index = sum(1 for member in placed if member.reserved)
        cpp = f"std::array<uint8_t, {aligned - offset}>"
        placed.append(Placed(f"reserved_{index}", cpp, offset, reserved=True))
    return aligned


def load_commands(path: Path) -> tuple[Command, ...]:
    """Reads the hand-written commands in the order of the file."""
    return tuple(_command(path, name, entry) for name, entry in read_toml(path).items())


def _command(path: Path, name: str, entry: Mapping[str, object]) -> Command:
    where = f"{path}: [{name}]"
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name):
        raise SpecError(f"{where}: a command's name is written in UpperCamelCase")
    unknown = set(entry) - {"group", "class", "stream", "traits", "fields", "reply"}
    if unknown:
        raise SpecError(f"{where}: unknown key {min(unknown)!r}")
    klass = entry.get("class")
    if not isinstance(klass, str) or klass not in CLASSES:
        raise SpecError(f"{where}: class must be one of {', '.join(CLASSES)}, not {klass!r}")
    if klass == "async" and "reply" in entry:
        raise SpecError(f"{where}: an async command has no reply; make it sync or drop `reply`")
    group = entry.get("group")
    if not isinstance(group, str):
        raise SpecError(f'{where}: write group = "NAME" (the file of native/worker/ that owns it)')
    request = _message(where, "fields", entry.get("fields", {}))
    stream = entry.get("stream")
    if stream is not None:
        fixed_ids = {f.name for f in request.fields if f.type.name == "id"}
        if not isinstance(stream, str) or stream not in fixed_ids:
            raise SpecError(f"{where}: stream = {stream!r} names no field of type id")
    reply = _message(where, "reply", entry.get("reply", {}))
    traits = read_traits(where, entry.get("traits", []), ordered=stream is not None)
    return Command(name, group, klass, stream, request, reply, traits)


def _message(where: str, key: str, entry: object) -> Message:
    if not isinstance(entry, dict):
        raise SpecError(f'{where}: {key} must be a table of NAME = "TYPE"')
    fields: list[Field] = []
    for name, kind in entry.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name.startswith("reserved_"):
            raise SpecError(f"{where}: {key}.{name}: a field's name is written in snake_case")
        if kind not in FIELD_TYPES:
            known = " ".join(FIELD_TYPES)
            raise SpecError(f"{where}: {key}.{name}: unknown type {kind!r}; known: {known}")
        fields.append(Field(name, FIELD_TYPES[kind]))
    return Message(tuple(fields))


def check_unique(commands: Iterable[Command]) -> None:
    """Refuses two commands of one name (an API command may not shadow a hand-written one)."""
    seen: set[str] = set()
    for command in commands:
        if command.name in seen:
            raise SpecError(f"the command {command.name} is declared twice")
        seen.add(command.name)


def protocol_hash(commands: Iterable[Command]) -> bytes:
    """SHA-256 over everything that both ends must agree on: numbers, classes, fields and types.

    Traits are not: they say what the worker does with a command, and nothing of what it is sent.
    """

    def message(value: Message) -> list[list[str]]:
        return [[field.name, field.type.name] for field in value.fields]

    model = {
        "encoding": ENCODING_VERSION,
        "commands": [
            [number, c.name, c.klass, c.stream or "", message(c.request), message(c.reply)]
            for number, c in enumerate(commands, start=1)
        ],
    }
    text = json.dumps(model, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).digest()
