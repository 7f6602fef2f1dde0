"""Finding the program, as a shell would.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from outboard.errors import CommandNotExecutable, CommandNotFound
from outboard.run.command import resolve_command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders on PATH, `a` before `b`, and the current folder apart from both."""
    for name in ("a", "b", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/a:{tmp_path}/b")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def make(path: Path, text: str = "#!/bin/sh\n", mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_path_is_searched_in_order(folder: Path) -> None:
    make(folder / "a/tool", mode=0o644)
    expected = make(folder / "b/tool")
    assert resolve_command(["tool", "x"]).path == expected
    assert resolve_command(["tool", "x"]).arguments == ["tool", "x"]


def test_a_dangling_link_is_passed_over(folder: Path) -> None:
    os.symlink("/nowhere", folder / "a/tool")
    expected = make(folder / "b/tool")
    assert resolve_command(["tool"]).path == expected


def test_the_current_folder_is_not_searched_but_named(folder: Path) -> None:
    make(folder / "here/tool")
    with pytest.raises(CommandNotFound) as caught:
        resolve_command(["tool"])
    assert "./tool" in caught.value.hint
    assert resolve_command(["./tool"]).path == "./tool"


def test_found_but_not_executable_is_not_the_same_as_not_found(folder: Path) -> None:
    make(folder / "a/tool", mode=0o644)
    with pytest.raises(CommandNotExecutable, match="permission denied"):
        resolve_command(["tool"])


def test_a_script_without_an_interpreter_line_runs_through_the_shell(folder: Path) -> None:
    path = make(folder / "a/tool", text="echo hello\n")
    assert resolve_command(["tool", "x"]).arguments == ["/bin/sh", path, "x"]


def test_a_string_with_spaces_is_a_shells_line_unless_it_is_a_file(folder: Path) -> None:
    assert resolve_command(["echo a b"]).arguments == ["/bin/sh", "-c", "echo a b"]
    path = make(folder / "here/with space")
    assert resolve_command([path]).path == path
    with pytest.raises(CommandNotFound):
        resolve_command(["echo a", "b"])


@pytest.mark.parametrize("words", [[""], ["missing"], ["/nowhere/tool"], ["./missing"]])
def test_what_does_not_exist(folder: Path, words: list[str]) -> None:
    with pytest.raises(CommandNotFound):
        resolve_command(words)
