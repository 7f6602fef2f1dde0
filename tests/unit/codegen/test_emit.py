"""Emission: complete, the same every time, and touching only what changed.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from codegen.annotations import Spec
from codegen.bodies import field_name
from codegen.emit import export, outputs, write
from tests.unit.codegen.conftest import ROOT


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return dict(outputs(ROOT))


def test_two_processes_with_different_hash_seeds_write_the_same(
    tmp_path: Path, files: dict[str, str]
) -> None:
    for seed in ("1", "2"):
        out = tmp_path / seed
        subprocess.run(
            [sys.executable, "-m", "codegen", "emit", "--out", str(out)],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin"},
            check=True,
        )
        assert {p.name: p.read_text(encoding="utf-8") for p in out.iterdir()} == files


def test_only_files_that_changed_are_written(tmp_path: Path) -> None:
    assert write(tmp_path, {"a": "1", "b": "2"}) == ["a", "b"]
    before = (tmp_path / "a").stat().st_mtime_ns
    assert write(tmp_path, {"a": "1", "b": "3"}) == ["b"]
    assert (tmp_path / "a").stat().st_mtime_ns == before


def test_the_exports_and_the_version_script_are_exactly_the_list(
    spec: Spec, files: dict[str, str]
) -> None:
    exported = re.findall(r"^OUTBOARD_EXPORT \S+ (cu\w+)", files["shim_exports.cpp"], re.MULTILINE)
    assert sorted(exported) == sorted((*spec.symbols, *spec.debugger))
    listed = re.findall(r"^    (cu\w+);$", files["shim.version"], re.MULTILINE)
    assert sorted(listed) == sorted((*spec.symbols, *spec.debugger))


def test_every_override_is_declared_with_its_own_signature(files: dict[str, str]) -> None:
    text = files["shim_api.hpp"]
    assert "CUresult cuMemAlloc_v2(CUdeviceptr* dptr, size_t bytesize);" in text
    assert "CUresult cuMulticastCreate(" not in text


@pytest.mark.parametrize(
    ("symbol", "target", "streams", "scoped"),
    [
        ("cuStreamSynchronize", "cuStreamSynchronize", (), False),
        ("cuStreamSynchronize_ptsz", "cuStreamSynchronize", ("hStream",), False),
        ("cuMemcpyHtoD_v2_ptds", "cuMemcpyHtoD_v2", (), True),
        ("cuLaunchKernelEx_ptsz", "cuLaunchKernelEx", (), True),
        ("cuStreamCopyAttributes_ptsz", "cuStreamCopyAttributes", ("dst", "src"), False),
        ("cuStreamDestroy", "cuStreamDestroy_v2", (), False),
    ],
)
def test_how_an_export_reaches_its_body(
    spec: Spec, symbol: str, target: str, streams: tuple[str, ...], scoped: bool
) -> None:
    made = export(spec, symbol)
    assert (made.target, made.null_streams, made.scoped) == (target, streams, scoped)


def test_an_unsupported_export_has_no_body(spec: Spec) -> None:
    assert export(spec, "cuMemRangeGetAttribute").target is None


def test_generated_functions_have_commands_after_the_written_ones(files: dict[str, str]) -> None:
    operations = re.findall(r"^  (\w+) = (\d+),$", files["commands.hpp"], re.MULTILINE)
    numbers = {name: int(number) for name, number in operations}
    assert numbers["ContextRetainPrimary"] == 1
    assert numbers["CtxGetCacheConfig"] > numbers["ProcessPrivateTable"]
    assert sorted(numbers.values()) == list(range(1, len(numbers) + 1))


def test_parameters_become_fields_in_snake_case() -> None:
    assert field_name("hStream") == "h_stream"
    assert field_name("globalDim") == "global_dim"
    assert field_name("op") == "op_value"


def test_a_mistake_is_one_line_and_exit_code_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "codegen", "extract", "--include", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("codegen: ")
    assert done.stderr.count("\n") == 1
