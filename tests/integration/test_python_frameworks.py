"""Numba and CuPy, unmodified, give through Outboard what they give on the software GPU itself.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.integration.harness import ROOT, Direct, Pool, expect_same

PROGRAMS = Path(__file__).parent / "frameworks"
PYTHON = Path(sys.prefix) / "bin/python"
# CuPy for CUDA 12 brings an older CUDA runtime; it cannot live beside CuPy for CUDA 13.
PYTHON_CUDA12 = ROOT / ".venv-cuda12/bin/python"


@pytest.mark.parametrize(
    ("python", "program", "said"),
    [
        (PYTHON, "numba_programs.py", "PASS"),
        (PYTHON, "cupy_programs.py", "PASS on CUDA 13"),
        (PYTHON_CUDA12, "cupy_programs.py", "PASS on CUDA 12"),
    ],
    ids=["numba", "cupy", "cupy-cuda12"],
)
def test_framework_computes_the_same_through_outboard(
    direct: Direct, pool: Pool, tmp_path: Path, python: Path, program: str, said: str
) -> None:
    assert python.exists(), f"{python} is missing: make test installs it"
    results: dict[str, bytes] = {}
    for way, runner in (("direct", direct), ("outboard", pool)):
        out = tmp_path / way
        # A cache of its own for each, so that both compile.
        extra = {"CUPY_CACHE_DIR": str(tmp_path / f"{way}-cache")}
        outcome = runner.run(python, PROGRAMS / program, out, results=out, extra=extra)
        assert outcome.returncode == 0, f"{way}: {outcome.describe()}"
        assert outcome.stdout.startswith(said), f"{way}: {outcome.describe()}"
        results[way] = outcome.results
    assert len(results["direct"]) > 0
    expect_same(results["outboard"], results["direct"])
