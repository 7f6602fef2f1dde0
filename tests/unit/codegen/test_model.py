"""Facts: what was extracted, and that it is what the headers say.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from codegen.annotations import Spec
from codegen.model import Variant, per_thread_base, to_json
from tests.unit.codegen.conftest import ROOT


def test_all_symbols_of_the_driver_are_known(spec: Spec) -> None:
    assert len(spec.symbols) == 674
    assert len(spec.debugger) == 33
    assert set(spec.symbols) == set(spec.facts.declarations)


def test_declarations_are_those_of_exactly_that_symbol(spec: Spec) -> None:
    first, second = (spec.facts.declarations[s] for s in ("cuMemAlloc", "cuMemAlloc_v2"))
    assert [p.type for p in first.parameters] == ["CUdeviceptr_v1 *", "unsigned int"]
    assert [p.type for p in second.parameters] == ["CUdeviceptr *", "size_t"]


@pytest.mark.parametrize(
    ("symbol", "parameter", "kind"),
    [
        ("cuStreamSynchronize", "hStream", "handle"),
        ("cuMemFree_v2", "dptr", "address"),
        ("cuDeviceGetName", "dev", "device"),
        ("cuCtxSetCacheConfig", "config", "enum"),
        ("cuStreamAddCallback", "callback", "callback"),
        ("cuLaunchKernelEx", "config", "pointer"),
        ("cuIpcOpenMemHandle_v2", "handle", "record"),
        ("cuMemAlloc_v2", "bytesize", "scalar"),
    ],
)
def test_kinds_of_parameters(spec: Spec, symbol: str, parameter: str, kind: str) -> None:
    found = {p.name: p.kind for p in spec.facts.declarations[symbol].parameters}
    assert found[parameter] == kind


def test_variants_have_their_versions(spec: Spec) -> None:
    variants = spec.facts.variants
    assert variants["cuMemAlloc"][-1] == Variant(3020, "cuMemAlloc_v2", None)
    assert variants["cuStreamBeginCapture"][-1] == Variant(
        10010, "cuStreamBeginCapture_v2", "cuStreamBeginCapture_v2_ptsz"
    )
    assert [v.introduced for v in variants["cuCtxCreate"]] == [2000, 3020, 11040, 12050]


def test_per_thread_variants_name_their_function() -> None:
    assert per_thread_base("cuMemcpy_ptds") == "cuMemcpy"
    assert per_thread_base("cuStreamBeginCapture_v2_ptsz") == "cuStreamBeginCapture_v2"
    assert per_thread_base("cuMemcpy") is None


def test_committed_facts_are_what_the_headers_say(spec: Spec) -> None:
    pytest.importorskip("clang.cindex")
    from codegen.extract import extract

    folders = [Path(folder) / "nvidia" / "cu13" / "include" for folder in sys.path]
    include = next((f for f in folders if (f / "cuda.h").exists()), None)
    if include is None:
        pytest.skip("the wheel nvidia-cuda-runtime is not installed")
    committed = ROOT / "api" / "cuda" / "declarations" / "13.0.json"
    facts = extract(include, spec.symbols)
    assert to_json(facts) == committed.read_text(encoding="utf-8")
