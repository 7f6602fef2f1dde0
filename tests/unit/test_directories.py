"""The runtime folder: the order of places, and what is not trusted.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from outboard.directories import pool_socket, runtime_directory, state_directory
from outboard.errors import ConfigurationError


def test_the_named_folder_is_made_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOARD_RUNTIME_DIR", str(tmp_path / "new"))
    assert runtime_directory() == str(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_folder_in_which_others_may_write_is_refused_and_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o1777)
    monkeypatch.setenv("OUTBOARD_RUNTIME_DIR", str(tmp_path / "open"))
    with pytest.raises(ConfigurationError, match="can be written by others"):
        runtime_directory()
    assert (tmp_path / "open").stat().st_mode & 0o7777 == 0o1777


def test_the_users_runtime_folder_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OUTBOARD_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_directory() == str(tmp_path / "outboard")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a folder of someone else")
def test_a_foreign_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "foreign").mkdir()
    os.chown(tmp_path / "foreign", 12345, 12345)
    monkeypatch.setenv("OUTBOARD_RUNTIME_DIR", str(tmp_path / "foreign"))
    with pytest.raises(ConfigurationError, match="belongs to uid 12345"):
        runtime_directory()


def test_a_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("OUTBOARD_RUNTIME_DIR", str(tmp_path / "link"))
    with pytest.raises(ConfigurationError, match="is not a folder"):
        runtime_directory()


def test_a_name_too_long_for_a_socket_is_said() -> None:
    with pytest.raises(ConfigurationError, match="too long a name"):
        pool_socket("/tmp/" + "x" * 120)


def test_without_a_home_there_is_no_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert state_directory() is None
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    assert state_directory() is None
