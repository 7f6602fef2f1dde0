"""A line reaches the terminals of people's programs, and of nobody who will have none.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from outboard.service.terminals import tell, terminal_path
from outboard.service.users import Use


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """(our end, the program's end by name)."""
    ours, theirs = os.openpty()
    yield ours, os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


def use(path: str, uid: int | None = None) -> Use:
    number = int(Path(path).name)
    device = os.makedev(136 + number // 256, number % 256)
    return Use(os.getpid(), os.geteuid() if uid is None else uid, "ada", "train", device, 1, 0.0)


def test_a_terminal_is_told_once_however_many_programs_run_there(
    terminal: tuple[int, str],
) -> None:
    ours, path = terminal
    os.chmod(path, 0o620)
    assert tell([use(path), use(path)], "the session ends\x1b[2J") == 1
    said = b""
    while said.count(b"\n") < 2:  # a terminal hands on what it has
        said += os.read(ours, 4096)
    assert said.split(b"\r\n")[1].strip() == b"outboard: the session ends?[2J"


def test_who_wants_no_messages_gets_none(terminal: tuple[int, str]) -> None:
    os.chmod(terminal[1], 0o600)
    assert tell([use(terminal[1])], "the session ends") == 0


def test_a_terminal_of_somebody_else_is_left_alone(terminal: tuple[int, str]) -> None:
    os.chmod(terminal[1], 0o620)
    stranger = os.stat(terminal[1]).st_uid + 12345
    login = int(Path("/proc/self/loginuid").read_text(encoding="ascii"))
    if login != os.stat(terminal[1]).st_uid:
        assert tell([use(terminal[1], stranger)], "the session ends") == 0


@pytest.mark.parametrize(
    ("device", "path"),
    [((136, 3), "/dev/pts/3"), ((137, 1), "/dev/pts/257"), ((4, 1), ""), ((0, 0), "")],
)
def test_the_kernels_number_names_a_pseudo_terminal(device: tuple[int, int], path: str) -> None:
    assert terminal_path(os.makedev(*device)) == path
