"""A copy of the specification that a test may break.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from codegen.annotations import Spec
from codegen.verify import load_spec

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def spec() -> Spec:
    """The checkout's own specification."""
    return load_spec(ROOT)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a copy of api/, to be changed."""
    shutil.copytree(ROOT / "api", tmp_path / "api")
    return tmp_path


@pytest.fixture
def edit(root: Path) -> Callable[[str, str, str], None]:
    """Replaces a text that occurs in a file of the copy."""

    def replace(name: str, old: str, new: str) -> None:
        path = root / "api" / "cuda" / name
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{name} has no {old!r}"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return replace
