"""The coverage page: what counts as covered.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from pathlib import Path

from codegen.annotations import Spec
from codegen.coverage import naming_tests, page, rows


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_a_function_that_no_test_names_is_not_covered(tmp_path: Path, spec: Spec) -> None:
    put(tmp_path, "tests/programs/a.cpp", "cuStreamQuery(stream);")
    found = {row.function.symbol: row.tests for row in rows(tmp_path, spec)}
    assert found["cuStreamQuery"] == ("tests/programs/a.cpp",)
    assert found["cuStreamSynchronize"] == ()
    text = page(tmp_path, spec)
    assert "| `cuStreamQuery` `_ptsz` | sync | by hand | by hand | `tests/programs/a.cpp` |" in text
    assert "| `cuStreamSynchronize` `_ptsz` | sync | by hand | by hand | not covered |" in text


def test_names_mean_what_the_header_makes_of_them(tmp_path: Path, spec: Spec) -> None:
    put(tmp_path, "native/shim/tests/b.cpp", "cuMemAlloc(&p, 1); cuMemcpyHtoD_v2_ptds(p, q, 1);")
    found = naming_tests(tmp_path, spec)
    assert set(found) == {"cuMemAlloc_v2", "cuMemcpyHtoD_v2"}


def test_tests_of_the_generator_cover_nothing(tmp_path: Path, spec: Spec) -> None:
    put(tmp_path, "tests/unit/codegen/c.py", "cuStreamQuery")
    put(tmp_path, "native/generated/tests/d.cpp", "cuStreamQuery")
    put(tmp_path, "tests/notes.md", "cuStreamQuery")
    assert naming_tests(tmp_path, spec) == {}


def test_every_symbol_stands_on_the_page(tmp_path: Path, spec: Spec) -> None:
    text = page(tmp_path, spec)
    assert all(f"`{symbol}" in text for symbol in spec.functions)
