"""Finds the program that a command line names, before anything is allocated for it.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import stat

from outboard.errors import CommandNotExecutable, CommandNotFound

_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"


class Command:
    """A program by its path, and the argument list it gets."""

    def __init__(self, path: str, arguments: list[str]) -> None:
        self.path = path
        self.arguments = arguments

    def __str__(self) -> str:
        return " ".join(self.arguments)


def resolve_command(words: list[str]) -> Command:
    """The command in these words; raises `CommandNotFound` or `CommandNotExecutable`.

    One word with spaces in it that is no file is a shell's command line: `"python train.py"`.
    """
    if len(words) == 1 and " " in words[0].strip() and not os.path.exists(words[0]):
        return Command("/bin/sh", ["/bin/sh", "-c", words[0]])
    path = _find(words[0])
    if _lacks_interpreter_line(path):
        return Command("/bin/sh", ["/bin/sh", path, *words[1:]])
    return Command(path, words)


def _find(name: str) -> str:
    if not name:
        raise CommandNotFound("the command is an empty word", "outboard run -n 1 -- COMMAND")
    if "/" in name:
        return _executable(name)
    not_executable: CommandNotExecutable | None = None
    for folder in os.environ.get("PATH", _DEFAULT_PATH).split(":"):
        path = os.path.join(folder or ".", name)
        if os.path.lexists(path) and not os.path.isdir(path):
            try:
                return _executable(path)
            except CommandNotExecutable as error:
                not_executable = not_executable or error
            except CommandNotFound:
                pass  # a dangling link: the next folder may have it
    if not_executable:
        raise not_executable
    here = f" or ./{name}" if os.path.exists(name) else ""
    raise CommandNotFound(f"{name}: command not found", f"check the spelling and PATH{here}")


def _executable(path: str) -> str:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise CommandNotFound(
            f"{path}: no such file", "check the spelling and the folder"
        ) from None
    except OSError as error:
        raise CommandNotExecutable(f"{path}: {error.strerror}", "check its folder's mode") from None
    if stat.S_ISDIR(found.st_mode):
        raise CommandNotExecutable(f"{path}: is a folder", "name a program")
    if not os.access(path, os.X_OK):
        raise CommandNotExecutable(f"{path}: permission denied", f"chmod +x {path}")
    return path


def _lacks_interpreter_line(path: str) -> bool:
    """Whether this is a script without `#!`, which the kernel refuses and every shell runs."""
    try:
        with open(path, "rb") as file:
            start = file.read(256)
    except OSError:
        return False  # executable but not readable: the kernel decides
    return bool(start) and not start.startswith((b"#!", b"\x7fELF")) and b"\0" not in start
