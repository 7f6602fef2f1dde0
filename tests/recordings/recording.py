"""Recordings of programs on real GPUs: small enough to keep, playable after the protocol changed.

SPDX-License-Identifier: Apache-2.0

`python -m tests.recordings.recording shrink IN.obrec OUT.obrec.xz` takes out what a replay against
the null driver does not need: module images become short texts that name the same kernels with the
same parameters, the bytes of copies become zeros, answers keep their results only. The commands'
names and fields are kept beside the bytes, so that `restore` can write the recording for a protocol
that has other numbers or other fields: fields are matched by name, new ones are zero.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from codegen.bodies import body
from codegen.commands import FIELD_TYPES, Command, Field, Message, protocol_hash
from codegen.emit import all_commands
from codegen.verify import load_spec

ROOT = Path(__file__).resolve().parents[2]
MAGIC = b"OBREC1\n\0"
RECORD = struct.Struct("<B3xIQ")
FRAME = struct.Struct("<IHHQQ")
COMMAND = struct.Struct("<IHHII")
MESSAGE = struct.Struct("<IHHQiI")
TO_SERVER, FROM_SERVER, PREFACE = 0, 1, 2
BATCH, REPLY, HOST_FUNCTION = 2, 1, 4
# Copies whose content a replay does not need; it stays as long as it was.
CONTENTS = {"CopyToDevice": "content"}

Values = dict[str, bytes]  # by field: the bytes of a fixed field, the content of a variable one


class RecordingError(Exception):
    """A recording that cannot be read or brought to the present protocol."""


@dataclass(frozen=True)
class Record:
    direction: int
    time_ns: int
    content: bytes


def records(data: bytes) -> Iterator[Record]:
    """The whole records of a recording; one that is cut off at the end is left out."""
    if not data.startswith(MAGIC):
        raise RecordingError("it does not begin as a recording does")
    at = len(MAGIC)
    while at + RECORD.size <= len(data):
        direction, length, time_ns = RECORD.unpack_from(data, at)
        at += RECORD.size
        if at + length > len(data):
            return
        yield Record(direction, time_ns, data[at : at + length])
        at += length


def written(content: list[Record]) -> bytes:
    parts = [MAGIC]
    for record in content:
        parts += [
            RECORD.pack(record.direction, len(record.content), record.time_ns),
            record.content,
        ]
    return b"".join(parts)


def padded(size: int) -> int:
    return (size + 7) // 8 * 8


def items(header: struct.Struct, batch: bytes) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """The headers and payloads of a batch."""
    at = 0
    while at < len(batch):
        fields = header.unpack_from(batch, at)
        at += header.size
        yield fields, batch[at : at + fields[0]]
        at += padded(fields[0])


def decode(message: Message, payload: bytes) -> Values:
    """The values of a command's or reply's fields."""
    values: Values = {}
    placed = {place.name: place.offset_bytes for place in message.placed}
    at = message.fixed_bytes
    for field in message.fields:
        if not field.type.variable:
            start = placed[field.name]
            values[field.name] = payload[start : start + field.type.size_bytes]
    for field in message.variable:
        (size,) = struct.unpack_from("<I", payload, at)
        values[field.name] = payload[at + 8 : at + 8 + size]
        at += 8 + padded(size)
    return values


def encode(message: Message, values: Mapping[str, bytes]) -> bytes:
    """The payload with these values; a field that has none is zero or empty."""
    fixed = bytearray(message.fixed_bytes)
    placed = {place.name: place.offset_bytes for place in message.placed}
    for field in message.fields:
        if not field.type.variable:
            value = values.get(field.name, b"").ljust(field.type.size_bytes, b"\0")
            fixed[placed[field.name] : placed[field.name] + field.type.size_bytes] = value
    parts = [bytes(fixed)]
    for field in message.variable:
        value = values.get(field.name, b"")
        parts += [struct.pack("<II", len(value), 0), value]
        parts.append(bytes(padded(len(value)) - len(value)))
    return b"".join(parts)


def present_commands() -> tuple[Command, ...]:
    """The commands of these sources, in the order of their numbers (from 1)."""
    return all_commands(ROOT, [body(function) for function in load_spec(ROOT).generated()])


def table(commands: tuple[Command, ...]) -> dict[str, dict[str, str]]:
    """By name: the request's fields and their types."""
    return {c.name: {f.name: f.type.name for f in c.request.fields} for c in commands}


def packed(places: list[tuple[int, int]]) -> list[int]:
    """Sizes that put parameters at these offsets without gaps: padding counts to the one before."""
    sizes = [size for _, size in places]
    end = 0
    for i, (offset, size) in enumerate(places):
        if i > 0:
            sizes[i - 1] += offset - end
        end = offset + size
    return sizes


class Shrinker:
    """One pass to learn the kernels of each image, one to write."""

    def __init__(self, data: bytes) -> None:
        self.records = list(records(data))
        self.commands = present_commands()
        self.by_number = dict(enumerate(self.commands, start=1))
        self.images: dict[bytes, dict[str, list[int]]] = {}  # offsets and sizes by kernel
        self._check_protocol()
        self._learn()

    def _check_protocol(self) -> None:
        preface = next((r.content for r in self.records if r.direction == PREFACE), b"")
        recorded = json.loads(preface[8:] or b"{}").get("protocol")
        if recorded != protocol_hash(self.commands).hex():
            raise RecordingError("it was recorded by other sources than these: record it again")

    def _learn(self) -> None:
        modules: dict[bytes, bytes] = {}  # image by module
        asked: dict[int, tuple[str, bytes]] = {}  # kernel and image by request
        for record in self.records:
            kind = FRAME.unpack_from(record.content)[1] if record.direction < PREFACE else 0
            if kind != BATCH:
                continue
            batch = record.content[FRAME.size :]
            if record.direction == TO_SERVER:
                for header, payload in items(COMMAND, batch):
                    command = self.by_number[header[1]]
                    values = decode(command.request, payload)
                    if command.name == "ModuleLoad":
                        modules[values["module"]] = values["hash"]
                        self.images.setdefault(values["hash"], {})
                    elif command.name == "ModuleGetFunction" and values["module"] in modules:
                        image = modules[values["module"]]
                        asked[header[4]] = values["name"].decode(), image
            else:
                self._learn_layouts(batch, asked)

    def _learn_layouts(self, batch: bytes, asked: dict[int, tuple[str, bytes]]) -> None:
        reply = next(c.reply for c in self.commands if c.name == "ModuleGetFunction")
        for header, payload in items(MESSAGE, batch):
            if header[1] != REPLY or header[3] not in asked or header[4] != 0:
                continue
            name, image = asked.pop(header[3])
            layout = decode(reply, payload)["offsets_sizes"]
            numbers = list(struct.unpack(f"<{len(layout) // 4}I", layout))
            self.images[image][name] = numbers

    def stand_in(self, image: bytes) -> bytes:
        """A text with the kernels that the recorded program took from an image."""
        lines = [f"// stands for {image.hex()}"]
        for name, layout in sorted(self.images.get(image, {}).items()):
            places = list(zip(layout[::2], layout[1::2], strict=True))
            parameters = ", ".join(
                f".param .align 1 .b8 p{i}[{size}]" for i, size in enumerate(packed(places))
            )
            lines.append(f".visible .entry {name}({parameters}) {{ ret; }}")
        return "\n".join(lines).encode() + b"\n\0"

    def shrunk(self) -> bytes:
        """The recording, compressed, behind the table of its commands."""
        content = []
        for record in self.records:
            if record.direction == TO_SERVER:
                record = replace(record, content=self._request(record.content))
            elif record.direction == FROM_SERVER:
                record = replace(record, content=self._answer(record.content))
            content.append(record)
        names = [[c.name, {f.name: f.type.name for f in c.request.fields}] for c in self.commands]
        head = json.dumps({"commands": names}).encode()
        return lzma.compress(struct.pack("<I", len(head)) + head + written(content), preset=9)

    def _request(self, content: bytes) -> bytes:
        frame = FRAME.unpack_from(content)
        if frame[1] != BATCH:
            return content
        parts = []
        for header, payload in items(COMMAND, content[FRAME.size :]):
            command = self.by_number[header[1]]
            values = decode(command.request, payload)
            if command.name == "ModuleImage":
                if int.from_bytes(values["offset"], "little") != 0:
                    continue  # one piece is enough for a stand-in
                image = self.stand_in(values["hash"])
                values |= {"content": image, "hash": hashlib.sha256(image).digest()}
                values["total_bytes"] = struct.pack("<Q", len(image))
            elif command.name == "ModuleLoad":
                values["hash"] = hashlib.sha256(self.stand_in(values["hash"])).digest()
            elif command.name in CONTENTS:
                name = CONTENTS[command.name]
                values[name] = bytes(len(values[name]))
            body_bytes = encode(command.request, values)
            parts += [COMMAND.pack(len(body_bytes), *header[1:]), body_bytes]
        return _framed(frame, b"".join(parts))

    def _answer(self, content: bytes) -> bytes:
        frame = FRAME.unpack_from(content)
        if frame[1] != BATCH:
            return content
        parts = [
            MESSAGE.pack(0, *header[1:])
            for header, _ in items(MESSAGE, content[FRAME.size :])
            if header[1] in (REPLY, HOST_FUNCTION)
        ]
        return _framed(frame, b"".join(parts))


def _framed(frame: tuple[int, ...], payload: bytes) -> bytes:
    return FRAME.pack(len(payload), *frame[1:]) + payload


def restore(path: Path) -> bytes:
    """A shrunk recording in the present protocol, for `outboard-replay`."""
    data = lzma.decompress(path.read_bytes())
    (length,) = struct.unpack_from("<I", data)
    names = json.loads(data[4 : 4 + length])["commands"]
    commands = present_commands()
    now = {c.name: (number, c) for number, c in enumerate(commands, start=1)}
    content = []
    for record in records(data[4 + length :]):
        frame = FRAME.unpack_from(record.content) if record.direction == TO_SERVER else None
        if frame is None or frame[1] != BATCH:
            content.append(record)
            continue
        parts = []
        for header, payload in items(COMMAND, record.content[FRAME.size :]):
            name, fields = names[header[1] - 1]
            if name not in now:
                raise RecordingError(f"{path}: the command {name} is gone: record it again")
            number, command = now[name]
            recorded = Message(tuple(Field(f, FIELD_TYPES[t]) for f, t in fields.items()))
            changed = encode(command.request, decode(recorded, payload))
            parts += [COMMAND.pack(len(changed), number, *header[2:]), changed]
        content.append(replace(record, content=_framed(frame, b"".join(parts))))
    return written(content)


def main(arguments: list[str]) -> int:
    if len(arguments) != 3 or arguments[0] not in ("shrink", "restore"):
        print("usage: recording.py shrink IN.obrec OUT.obrec.xz", file=sys.stderr)
        print("       recording.py restore IN.obrec.xz OUT.obrec", file=sys.stderr)
        return 2
    source, target = Path(arguments[1]), Path(arguments[2])
    try:
        if arguments[0] == "shrink":
            target.write_bytes(Shrinker(source.read_bytes()).shrunk())
        else:
            target.write_bytes(restore(source))
    except RecordingError as error:
        print(f"{source}: {error}", file=sys.stderr)
        return 1
    print(f"{target}: {target.stat().st_size} bytes, from {source.stat().st_size}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
