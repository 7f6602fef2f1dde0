"""The driver: a real one by the loader's cache, never our own shim.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from outboard.agent.driver import candidate_drivers, real_driver_paths
from outboard.agent.elf import note_owners
from outboard.errors import ConfigurationError
from outboard.native import NativeFiles

NOTE = """
.section .note.outboard, "a", @note
.long 9, 4, 1
.asciz "outboard"
.balign 4
.long 1
"""


def library(path: Path, source: str) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a compiler")
    assembly = path.with_suffix(".s")
    assembly.write_text(source)
    subprocess.run([compiler, "-shared", "-nostdlib", "-o", path, assembly], check=True)
    subprocess.run(["strip", path], check=True)
    return path


def cache(*paths: Path) -> str:
    lines = [f"\tlibcuda.so.1 (libc6,x86-64) => {path}" for path in paths]
    return "\n".join(["2 libs found in cache `/etc/ld.so.cache'", *lines, "\tlibc.so.6 (x) => /x"])


def test_our_own_shim_is_told_by_its_note_and_passed_over(tmp_path: Path) -> None:
    shim = library(tmp_path / "shim.so", NOTE)
    real = library(tmp_path / "real.so", ".globl cuInit\ncuInit: ret\n")
    assert b"outboard" in note_owners(str(shim))
    assert b"outboard" not in note_owners(str(real))
    assert real_driver_paths(cache(shim, real, tmp_path / "missing")) == [str(real)]


def test_a_32_bit_driver_is_passed_over(tmp_path: Path) -> None:
    assert real_driver_paths(f"\tlibcuda.so.1 (libc6) => {tmp_path}") == []


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 100, b"text"])
def test_what_is_no_library_has_no_notes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert note_owners(str(path)) == set()


def test_the_setting_decides(tmp_path: Path) -> None:
    native = NativeFiles(str(tmp_path))
    assert [d.software for d in candidate_drivers("software", native)] == [True]
    assert candidate_drivers("auto", native)[-1].path == native.software_driver
    real = library(tmp_path / "real.so", ".globl cuInit\ncuInit: ret\n")
    assert [d.path for d in candidate_drivers(str(real), native)] == [str(real)]
    with pytest.raises(ConfigurationError, match="does not exist"):
        candidate_drivers("/nowhere/libcuda.so.1", native)
    with pytest.raises(ConfigurationError, match="Outboard's own shim"):
        candidate_drivers(str(library(tmp_path / "shim.so", NOTE)), native)
