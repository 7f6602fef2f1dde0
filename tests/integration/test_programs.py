"""Unmodified CUDA programs give, through Outboard, the result buffers that they give without it.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.harness import SITE_PACKAGES, Direct, Native, Pool, expect_same
from tests.programs.cases import CASES, HOST_MEMORY_CASES, WITHOUT_RESULTS

pytestmark = pytest.mark.sanitize


def arguments_of(name: str) -> list[str]:
    if name == "nvrtcModule":
        folder = SITE_PACKAGES / "nvidia/cu13/lib"
        return [
            "--nvrtc",
            str(folder / "libnvrtc.so.13"),
            "--builtins",
            str(folder / "libnvrtc-builtins.so.13.0"),
        ]
    return []


@pytest.mark.parametrize(("kind", "name"), CASES, ids=[f"{kind}-{name}" for kind, name in CASES])
def test_program_computes_the_same_through_outboard(
    native: Native, direct: Direct, pool: Pool, tmp_path: Path, kind: str, name: str
) -> None:
    compare(native, direct, pool, tmp_path, kind, name, {})


@pytest.mark.parametrize(("kind", "name"), HOST_MEMORY_CASES, ids=lambda word: word)
def test_program_computes_the_same_where_its_memory_is_copied(
    native: Native, direct: Direct, pool: Pool, tmp_path: Path, kind: str, name: str
) -> None:
    """As over a network; on one host pinned memory is shared with the server."""
    compare(native, direct, pool, tmp_path, kind, name, {"OUTBOARD_SHARED_MEMORY": "0"})


def compare(
    native: Native,
    direct: Direct,
    pool: Pool,
    tmp_path: Path,
    kind: str,
    name: str,
    extra: dict[str, str],
) -> None:
    program = native.program(name, kind)
    arguments = arguments_of(name)
    expected_file = tmp_path / "direct"
    actual_file = tmp_path / "outboard"

    expected = direct.run(program, *arguments, "--out", expected_file, results=expected_file)
    assert expected.returncode == 0, f"directly: {expected.describe()}"
    actual = pool.run(program, *arguments, "--out", actual_file, results=actual_file, extra=extra)
    assert actual.returncode == 0, f"through Outboard: {actual.describe()}"

    assert f"{name}: Result = PASS" in actual.stdout
    assert (len(expected.results) > 0) == (name not in WITHOUT_RESULTS)
    expect_same(actual.results, expected.results)


def test_an_unsupported_function_is_refused_by_name_and_the_program_goes_on(
    native: Native, pool: Pool
) -> None:
    refused = pool.run(native.program("refusedFunction", "driver"))
    assert refused.returncode == 0, refused.describe()
    said = "outboard: the program called cuMulticastGetGranularity, which is not supported"
    assert refused.stderr.count(said) == 1


def test_decompression_is_handed_on_to_devices_that_have_an_engine(
    native: Native, own_pool: Pool
) -> None:
    # No device of the tests has one; the null driver says that it has, and checks what it is asked.
    own_pool.options["OUTBOARD_DRIVER"] = str(native.root / "lib/nulldriver/libcuda.so.1")
    outcome = own_pool.run(native.program("decompression", "driver"))
    assert outcome.returncode == 0, outcome.describe()


def test_large_pinned_memory_deep_in_a_structure_is_refused_with_what_to_do(
    native: Native, direct: Direct, pool: Pool
) -> None:
    program = native.program("pinnedInside", "driver")
    assert direct.run(program, "--unasked", "1").returncode == 0
    apart = {"OUTBOARD_SHARED_MEMORY": "0"}
    refused = pool.run(program, "--unasked", "1", extra=apart)
    assert refused.returncode == 1
    assert "CUDA_ERROR_ILLEGAL_ADDRESS (700)" in refused.stderr
    assert "set OUTBOARD_PINNED_IN_STRUCTURES=1" in refused.stderr
    extra = apart | {"OUTBOARD_PINNED_IN_STRUCTURES": "1"}
    told = pool.run(program, "--unasked", "1", extra=extra)
    assert told.returncode == 0, told.describe()


@pytest.mark.parametrize("kind", ["static", "shared"])
def test_device_printf_keeps_its_place_between_prints_of_the_host(
    native: Native, direct: Direct, pool: Pool, kind: str
) -> None:
    program = native.program("devicePrintf", kind)
    text = pool.run(program).stdout
    # Blocks run in any order.
    assert sorted(text.splitlines()) == sorted(direct.run(program).stdout.splitlines())
    for number in range(3):
        before = text.index(f"host: before round {number}\n")
        said = text.index(f"device: round {7 * number}: ")
        after = text.index(f"host: after round {number}\n")
        assert before < said < after
    assert f"device: round 14: {1.0:5.2f} left  | 0xbeef x 1099511627776 %\n" in text
    for block in range(2):
        for thread in range(3):
            assert text.count(f"device: thread {thread} of block {block}\n") == 1


@pytest.mark.parametrize("kind", ["static", "shared"])
def test_what_a_kernel_says_before_its_assertion_fails_reaches_the_program(
    native: Native, direct: Direct, pool: Pool, kind: str
) -> None:
    program = native.program("deviceAssert", kind)
    remote, local = pool.run(program, options=("-q",)), direct.run(program)
    assert remote.returncode == 0, remote.describe()
    assert remote.stdout == local.stdout
    before = remote.stdout.index("host: before the kernel\n")
    said = remote.stdout.index("device: the first value is 5\n")
    after = remote.stdout.index("host: the kernel gives 710\n")
    assert before < said < after
    assert "Assertion `value < most` failed." in remote.stderr
    assert remote.stderr == local.stderr


def test_a_program_that_fails_gives_its_own_exit_code(native: Native, pool: Pool) -> None:
    outcome = pool.run(native.program("forkedHolder"))
    assert outcome.returncode == 1, outcome.describe()
    assert "--release FILE is missing" in outcome.stderr


def test_large_copies_cross_with_little_staging(native: Native, pool: Pool, tmp_path: Path) -> None:
    outcome = pool.run(native.program("orderCrossedCopies", "driver"), "--mib", "512")
    assert outcome.returncode == 0, outcome.describe()


def test_the_program_sees_the_software_gpu_by_name(native: Native, pool: Pool) -> None:
    outcome = pool.run(native.program("vectorAddDriver", "driver"))
    assert "on Software GPU" in outcome.stdout, outcome.describe()
