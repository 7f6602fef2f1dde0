"""Tells people something at the terminals of their programs, as write(1) does.

SPDX-License-Identifier: Apache-2.0

Only at pseudo-terminals that let others write (`mesg y`), and only where the terminal belongs to
who runs the program or logged in to run it: the numbers in a container are other terminals'.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from outboard.service.users import Use

# Linux's majors of pseudo-terminals, each with 256 of them.
_FIRST_MAJOR, _LAST_MAJOR = 136, 143


def tell(uses: Iterable[Use], text: str) -> int:
    """Write a line to each terminal on which one of these programs runs; returns to how many."""
    line = "".join(letter if letter.isprintable() else "?" for letter in text)
    terminals = {path for use in uses if (path := _terminal(use))}
    return sum(_write(path, f"\r\noutboard: {line}\r\n") for path in sorted(terminals))


def terminal_path(number: int) -> str:
    """The pseudo-terminal that field tty_nr of /proc/PID/stat names; empty for what is none."""
    major, minor = os.major(number), os.minor(number)
    if not _FIRST_MAJOR <= major <= _LAST_MAJOR:
        return ""
    return f"/dev/pts/{(major - _FIRST_MAJOR) * 256 + minor}"


def _terminal(use: Use) -> str:
    path = terminal_path(use.terminal)
    try:
        owner = os.stat(path).st_uid if path else -1
        with open(f"/proc/{use.pid}/loginuid", encoding="ascii") as file:
            login = int(file.read())
    except OSError:
        return ""
    return path if owner in (use.uid, login) else ""


def _write(path: str, text: str) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not os.fstat(descriptor).st_mode & stat.S_IWGRP:
            return False  # mesg n
        os.write(descriptor, text.encode(errors="replace"))
    except OSError:
        return False  # nobody reads there
    finally:
        os.close(descriptor)
    return True
