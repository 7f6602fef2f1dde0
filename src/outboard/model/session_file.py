"""The session file: the stable name for what a program may use (docs/internals/session.md §1).

SPDX-License-Identifier: Apache-2.0

Standard library alone, and little of it: the launcher reads and writes these.
"""

from __future__ import annotations

import json
import os
import stat

from outboard.errors import (
    SessionFileError,
    SessionFileForeign,
    SessionFileMalformed,
    SessionFileUnreadable,
)

VERSION = 1
LARGEST_FILE_BYTES = 64 * 1024
MACHINE_SESSION_FILE = "/run/outboard/default/session.json"

_NEXT = "start a new session with `unset OUTBOARD_SESSION; outboard run -n 1 -- COMMAND`"


class SessionDevice:
    """One GPU of a session as its programs are told of it."""

    def __init__(self, node: int, index: int, uuid: str, name: str, share_bytes: int) -> None:
        self.node = node
        self.index = index
        self.uuid = uuid
        self.name = name
        self.share_bytes = share_bytes

    def to_json(self) -> dict[str, object]:
        return {
            "node": self.node,
            "index": self.index,
            "uuid": self.uuid,
            "name": self.name,
            "share_bytes": self.share_bytes,
        }


class SessionNode:
    """One GPU server of a session: name, `host:port` of its data plane, how that is secured.

    `grant` and `key` are this server's own; empty where the session's count, which are those of
    its first server.
    """

    def __init__(self, name: str, address: str, tls: str, grant: str = "", key: str = "") -> None:
        self.name = name
        self.address = address
        self.tls = tls
        self.grant = grant
        self.key = key

    def to_json(self) -> dict[str, object]:
        told: dict[str, object] = {"name": self.name, "address": self.address, "tls": self.tls}
        if self.grant:
            told |= {"grant": self.grant, "key": self.key}
        return told


class SessionFile:
    """The content of a session file, in either form.

    The inline form has nodes, devices, grant and key; the socket form has only `socket`.
    """

    def __init__(
        self,
        session: str,
        *,
        nodes: list[SessionNode] | None = None,
        devices: list[SessionDevice] | None = None,
        grant: str = "",
        key: str = "",
        socket: str = "",
    ) -> None:
        self.session = session
        self.nodes = nodes or []
        self.devices = devices or []
        self.grant = grant
        self.key = key
        self.socket = socket

    @property
    def form(self) -> str:
        return "socket" if self.socket else "inline"

    def to_json(self) -> dict[str, object]:
        head: dict[str, object] = {"version": VERSION, "session": self.session, "form": self.form}
        if self.socket:
            return {**head, "socket": self.socket}
        return {
            **head,
            "nodes": [node.to_json() for node in self.nodes],
            "grant": self.grant,
            "key": self.key,
            "devices": [device.to_json() for device in self.devices],
        }


def parse_session(document: object) -> SessionFile:
    """The session in a decoded JSON document; raises `SessionFileMalformed` saying which field."""
    record = _record(document, "the file")
    if record.get("version") != VERSION:
        raise SessionFileMalformed(
            f"session format version is {record.get('version')!r}, this release reads {VERSION}",
            "use the release of Outboard that made it, or " + _NEXT,
        )
    session = _text(record, "session")
    form = _text(record, "form")
    if form == "socket":
        socket = _text(record, "socket")
        if not os.path.isabs(socket):
            raise SessionFileMalformed(f"socket {socket!r} is not an absolute path", _NEXT)
        return SessionFile(session, socket=socket)
    if form != "inline":
        raise SessionFileMalformed(f"form is {form!r}, not inline or socket", _NEXT)
    key = _key(record)
    nodes = [_node(item) for item in _array(record, "nodes")]
    devices = [_device(item, len(nodes)) for item in _array(record, "devices")]
    return SessionFile(session, nodes=nodes, devices=devices, grant=_text(record, "grant"), key=key)


def write_session_file(path: str, content: SessionFile) -> None:
    """Put the file in place in one step: a reader sees the old one or the new, never half."""
    mode = 0o644 if content.form == "socket" else 0o600
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content.to_json(), file, ensure_ascii=False)
            file.write("\n")
        if mode != 0o600:
            os.chmod(temporary, mode)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_session_file(path: str) -> SessionFile:
    """Read a file that may be followed; raises a `SessionFileError` that says why it may not."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        why = "it does not exist: the session has ended" if error.errno == 2 else error.strerror
        raise SessionFileUnreadable(f"session file {path}: {why}", _NEXT) from error
    try:
        found = os.fstat(descriptor)
        _check_owner_and_mode(path, found)
        data = os.read(descriptor, LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise SessionFileUnreadable(f"session file {path}: {error.strerror}", _NEXT) from error
    finally:
        os.close(descriptor)
    try:
        if len(data) > LARGEST_FILE_BYTES:
            raise SessionFileMalformed(f"larger than {LARGEST_FILE_BYTES} bytes", _NEXT)
        content = parse_session(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise SessionFileMalformed(f"session file {path}: not JSON: {error}", _NEXT) from error
    except SessionFileError as error:
        raise SessionFileMalformed(f"session file {path}: {error.message}", error.hint) from error
    if content.form == "inline" and found.st_mode & 0o077:
        raise SessionFileForeign(
            f"session file {path} holds a key and its mode is {found.st_mode & 0o777:04o}",
            f"chmod 600 {path}",
        )
    return content


def find_session_file() -> str | None:
    """The file that a program of this user would follow: environment, user's, machine's."""
    named = os.environ.get("OUTBOARD_SESSION")
    if named:
        return named
    uid = os.getuid()
    for path in (
        f"/run/user/{uid}/outboard/session.json",
        f"/run/outboard/users/{uid}.json",
        MACHINE_SESSION_FILE,
    ):
        if os.path.exists(path):
            return path
    return None


def _check_owner_and_mode(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SessionFileUnreadable(f"session file {path}: not a regular file", _NEXT)
    if found.st_uid not in (0, os.getuid()):
        raise SessionFileForeign(
            f"session file {path} belongs to uid {found.st_uid}; only yours or root's is followed",
            _NEXT,
        )
    if found.st_mode & 0o022:
        raise SessionFileForeign(
            f"session file {path} can be written by others (mode {found.st_mode & 0o777:04o})",
            f"chmod go-w {path}",
        )


def _record(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise SessionFileMalformed(f"{what} is not an object", _NEXT)
    return value


def _text(record: dict[str, object], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value:
        raise SessionFileMalformed(f"{name} is missing or not text", _NEXT)
    return value


def _number(record: dict[str, object], name: str) -> int:
    value = record.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise SessionFileMalformed(f"{name} is missing or not a whole number", _NEXT)
    return value


def _array(record: dict[str, object], name: str) -> list[object]:
    value = record.get(name)
    if not isinstance(value, list) or not value:
        raise SessionFileMalformed(f"{name} is missing or empty", _NEXT)
    return value


def _node(item: object) -> SessionNode:
    record = _record(item, "a node")
    address = _text(record, "address")
    port = address.rpartition(":")[2]
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise SessionFileMalformed(f"address {address!r} is not HOST:PORT", _NEXT)
    name, tls = _text(record, "name"), _text(record, "tls")
    if "grant" not in record and "key" not in record:
        return SessionNode(name, address, tls)
    return SessionNode(name, address, tls, _text(record, "grant"), _key(record))


def _key(record: dict[str, object]) -> str:
    key = _text(record, "key")
    if len(key) != 64 or key.strip("0123456789abcdef"):
        raise SessionFileMalformed("key is not 64 hexadecimal digits", _NEXT)
    return key


def _device(item: object, node_count: int) -> SessionDevice:
    record = _record(item, "a device")
    node = _number(record, "node")
    if node >= node_count:
        raise SessionFileMalformed(f"a device names node {node}, there are {node_count}", _NEXT)
    return SessionDevice(
        node,
        _number(record, "index"),
        _text(record, "uuid"),
        _text(record, "name"),
        _number(record, "share_bytes"),
    )
