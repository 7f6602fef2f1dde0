"""Programs that use two devices of one server at once.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.harness import Direct, Native, Pool, expect_same
from tests.programs.cases import TWO_DEVICE_CASES, WITHOUT_RESULTS

pytestmark = pytest.mark.sanitize


@pytest.mark.parametrize(("kind", "name"), TWO_DEVICE_CASES)
def test_a_program_on_two_devices_computes_what_it_does_directly(
    native: Native, direct: Direct, own_pool: Pool, tmp_path: Path, kind: str, name: str
) -> None:
    program = native.program(name, kind)
    expected_file, actual_file = tmp_path / "direct", tmp_path / "outboard"
    two = {"SOFTGPU_DEVICES": "2"}
    expected = direct.run(program, "--out", expected_file, results=expected_file, extra=two)
    assert expected.returncode == 0, f"directly: {expected.describe()}"

    own_pool.options.update(two)
    actual = own_pool.run(program, "--out", actual_file, options=("-n", "2"), results=actual_file)
    assert actual.returncode == 0, f"through Outboard: {actual.describe()}"
    assert (len(expected.results) > 0) == (name not in WITHOUT_RESULTS)
    expect_same(actual.results, expected.results)


def test_a_managed_variable_is_of_one_device_and_says_so(native: Native, own_pool: Pool) -> None:
    own_pool.options["SOFTGPU_DEVICES"] = "2"
    program = native.program("managedVariables", "static")
    done = own_pool.run(program, "--refused-on", "1", options=("-n", "2"))
    assert done.returncode == 0, done.describe()
    assert "managed variable" in done.stderr and "CUDA_VISIBLE_DEVICES=1" in done.stderr
