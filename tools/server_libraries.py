"""Puts the libraries of controller and agent into a folder, for the package `outboard-server`.

SPDX-License-Identifier: Apache-2.0

    tools/server_libraries.py FOLDER

What the extra `server` of pyproject.toml asks for, and what that asks for, is copied from this
environment, so that the package has the versions that the tests ran with. Left out: what is for
building and for other interpreters (headers, sources, byte code, programs), and tests.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import Distribution, PackagePath, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_LEFT_OUT_SUFFIXES = {".pyc", ".pyx", ".pxd", ".c", ".h", ".pyi"}
_LICENCES = ("License-Expression", "License")
_LEFT_OUT_FOLDERS = {"__pycache__", "tests", "testing", "test"}


def closure(name: str, extras: frozenset[str]) -> dict[str, Distribution]:
    """What the extras of a distribution need, by name, itself not among it."""
    found: dict[str, Distribution] = {}
    asked: set[tuple[str, str]] = set()
    waiting = [(name, extra) for extra in ("", *extras)]
    while waiting:
        one = waiting.pop()
        if one in asked:
            continue
        asked.add(one)
        at, extra = one
        for text in distribution(at).requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                found[canonicalize_name(needed.name)] = distribution(needed.name)
                waiting += [(needed.name, each) for each in ("", *needed.extras)]
    return found


def wanted(path: PackagePath) -> bool:
    """Whether a file of a distribution is needed where it only runs."""
    return not (
        path.parts[0] in ("..", "/")
        or path.suffix in _LEFT_OUT_SUFFIXES
        or _LEFT_OUT_FOLDERS.intersection(path.parts[:-1])
    )


def copy(found: dict[str, Distribution], folder: Path) -> None:
    """Copy them, native code without what only debuggers need."""
    for each in found.values():
        for path in each.files or ():
            if not wanted(path):
                continue
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(path.locate()), target)
            if ".so" in path.suffixes:
                subprocess.run(["strip", "--strip-unneeded", target], check=True)


def main(words: list[str]) -> int:
    folder = Path(words[0])
    found = closure("outboard", frozenset({"server"}))
    copy(found, folder)
    for name, each in sorted(found.items()):
        licence = [each.metadata[at] for at in _LICENCES if at in each.metadata]
        print(f"{name} {each.version} ({licence[0] if licence else 'see there'})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
