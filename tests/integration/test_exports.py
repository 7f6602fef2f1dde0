"""What the shim shows to the linker: the driver's names, nothing else, and libc's family behind it.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.integration.harness import ROOT, Native

LIBC_FAMILY = {
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "librt.so.1",
    "libpthread.so.0",
    "ld-linux-x86-64.so.2",
}


def exported_by_the_driver() -> set[str]:
    """The names that a libcuda.so.1 of driver 580 exports."""
    lines = (ROOT / "api/cuda/symbols-580.txt").read_text().splitlines()
    return {line.split()[0] for line in lines if line and not line.startswith("#")}


def symbols(library: str, *options: str) -> list[list[str]]:
    listing = subprocess.run(
        ["nm", "-D", "--format=posix", *options, library],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [line.split() for line in listing.splitlines()]


def dynamic_section(library: str) -> str:
    return subprocess.run(
        ["readelf", "-d", "-W", library], check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(params=["shim", "softgpu"])
def library(request: pytest.FixtureRequest, native: Native) -> str:
    return str(native.root / "lib" / request.param / "libcuda.so.1")


def test_the_list_is_the_driver_s() -> None:
    names = exported_by_the_driver()
    assert len([name for name in names if name.startswith("cudbg")]) == 33
    assert len([name for name in names if not name.startswith("cudbg")]) == 674


def test_exports_are_exactly_the_driver_s(library: str) -> None:
    # A version script may add the name of its version, an absolute symbol.
    exported = {
        words[0].partition("@")[0]
        for words in symbols(library, "--defined-only")
        if words[1] != "A"
    }
    expected = exported_by_the_driver()
    assert exported - expected == set(), "names that a driver does not export"
    assert expected - exported == set(), "names of the driver that are missing"


def test_needs_libc_s_own_family_only(library: str) -> None:
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic_section(library)))
    assert needed, "readelf lists nothing: the test would prove nothing"
    assert needed <= LIBC_FAMILY


def test_soname_is_the_driver_s(library: str) -> None:
    assert "Library soname: [libcuda.so.1]" in dynamic_section(library)


def test_no_symbol_is_taken_from_elsewhere(library: str) -> None:
    # Weak references (gmon, transactional memory) may stay undefined; all others must be libc's.
    undefined = [words[0] for words in symbols(library, "--undefined-only") if words[1] == "U"]
    foreign = [name for name in undefined if not re.search(r"@(GLIBC|GCC)_", name)]
    assert foreign == []


def test_the_plain_name_stands_beside_the_soname(library: str, native: Native) -> None:
    plain = native.root / "lib" / library.split("/")[-2] / "libcuda.so"
    assert plain.is_symlink()
    assert (
        plain.resolve()
        == native.root.joinpath("lib", library.split("/")[-2], "libcuda.so.1").resolve()
    )


def test_the_shim_carries_the_note_that_keeps_workers_from_loading_it(native: Native) -> None:
    notes = subprocess.run(
        ["readelf", "-n", "-W", str(native.shim / "libcuda.so.1")],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert ".note.outboard" in notes
    plain = subprocess.run(
        ["readelf", "-n", "-W", str(native.softgpu / "libcuda.so.1")],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert ".note.outboard" not in plain
