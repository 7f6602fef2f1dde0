"""Session files: both forms, and what may not be followed.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from outboard.errors import (
    SessionFileError,
    SessionFileForeign,
    SessionFileMalformed,
    SessionFileUnreadable,
)
from outboard.model.session_file import (
    SessionDevice,
    SessionFile,
    SessionNode,
    find_session_file,
    read_session_file,
    write_session_file,
)

INLINE = SessionFile(
    "s-1",
    nodes=[SessionNode("gpu1", "127.0.0.1:40123", "none")],
    devices=[SessionDevice(0, 3, "GPU-1", "Näme", 1 << 30)],
    grant="a.b",
    key="0f" * 32,
)
SOCKET = SessionFile("s-2", socket="/run/outboard/default/sock")


@pytest.mark.parametrize(("content", "mode"), [(INLINE, 0o600), (SOCKET, 0o644)])
def test_both_forms_are_read_as_they_were_written(
    tmp_path: Path, content: SessionFile, mode: int
) -> None:
    path = tmp_path / "session.json"
    before = os.umask(0)
    try:
        write_session_file(str(path), content)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode
    assert path.read_text(encoding="utf-8").count("\n") == 1
    assert read_session_file(str(path)).to_json() == content.to_json()
    assert [entry.name for entry in tmp_path.iterdir()] == ["session.json"]


def test_a_socket_form_holds_no_secret() -> None:
    assert set(SOCKET.to_json()) == {"version", "session", "form", "socket"}


def _changed(**changes: Any) -> str:
    return json.dumps({**INLINE.to_json(), **changes})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[]", "not an object"),
        ("[" * 100_000, "larger than"),
        ("[" * 60_000, "not JSON"),
        ('"\ud800"', "not an object"),
        ("\xff{}", "version is|not JSON|not an object"),
        (_changed(version=2), "version is 2"),
        (_changed(form="other"), "form is 'other'"),
        (_changed(key="zz"), "key is not 64"),
        (_changed(grant=""), "grant is missing"),
        (_changed(nodes=[]), "nodes is missing or empty"),
        (_changed(nodes=[{"name": "a", "address": "x", "tls": "none"}]), "not HOST:PORT"),
        (_changed(nodes=[{"name": "a", "address": "x:99999", "tls": "none"}]), "not HOST:PORT"),
        (_changed(devices=[{**INLINE.devices[0].to_json(), "node": 1}]), "names node 1"),
        (_changed(devices=[{**INLINE.devices[0].to_json(), "share_bytes": -1}]), "share_bytes"),
        (_changed(form="socket", socket="relative"), "not an absolute path"),
    ],
)
def test_a_malformed_file_is_refused_with_the_reason(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "session.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    path.chmod(0o600)
    with pytest.raises(SessionFileMalformed, match=said) as caught:
        read_session_file(str(path))
    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o640, 0o604])
def test_a_key_that_others_could_have_read_or_written_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "session.json"
    write_session_file(str(path), INLINE)
    path.chmod(mode)
    with pytest.raises(SessionFileForeign, match="session file"):
        read_session_file(str(path))


def test_a_foreign_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "session.json"
    write_session_file(str(path), INLINE)
    if os.getuid() == 0:
        os.chown(path, 12345, 12345)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(SessionFileForeign, match="belongs to uid"):
        read_session_file(str(path))


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SessionFileUnreadable, match="the session has ended"):
        read_session_file(str(tmp_path / "missing"))
    with pytest.raises(SessionFileUnreadable, match="not a regular file"):
        read_session_file(str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SessionFileError, match="not a regular file"):
        read_session_file(str(tmp_path / "fifo"))


def test_the_environment_names_the_file_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOARD_SESSION", "/somewhere")
    assert find_session_file() == "/somewhere"
