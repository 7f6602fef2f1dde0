"""Fixtures of the integration tests: what was built, the direct run, and a pool of one's own.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.harness import ROOT, Direct, Native, Pool


@pytest.fixture(scope="session")
def native() -> Native:
    """The native files under test: `OUTBOARD_NATIVE_DIR`, else the checkout's build folder."""
    root = Path(os.environ.get("OUTBOARD_NATIVE_DIR", ROOT / "build")).resolve()
    assert (root / "lib/softgpu/libcuda.so.1").exists(), f"nothing is built in {root}: make build"
    return Native(root)


@pytest.fixture(scope="session")
def direct(native: Native, tmp_path_factory: pytest.TempPathFactory) -> Direct:
    """Programs on the software GPU itself."""
    return Direct(native, tmp_path_factory.mktemp("direct"))


@pytest.fixture(scope="session")
def pool(native: Native, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """A pool that tests share. One that breaks something has to use `own_pool`."""
    shared = Pool(native, tmp_path_factory.mktemp("pool"))
    yield shared
    shared.stop()


@pytest.fixture
def own_pool(native: Native, tmp_path: Path) -> Iterator[Pool]:
    """A pool for one test alone."""
    own = Pool(native, tmp_path)
    yield own
    own.stop()
