"""A pool with fake workers: everything but the GPU is what users get.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FAKES = Path(__file__).parent / "fakes"
SOURCES = Path(__file__).parents[2] / "src"
HANG_GUARD_S = 60.0


class Outboard:
    """Runs the command line in an environment of its own, with a pool of its own."""

    def __init__(self, folder: Path) -> None:
        self.runtime = folder / "run"
        self.native = folder / "native"
        self.state = folder / "state"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": str(SOURCES),
            "OUTBOARD_NATIVE_DIR": str(self.native),
            "OUTBOARD_RUNTIME_DIR": str(self.runtime),
            "OUTBOARD_DRIVER": "software",
            "OUTBOARD_ISOLATION": "off",  # the fake worker's interpreter lies anywhere
            "XDG_STATE_HOME": str(self.state),
        }

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "outboard", *words]

    def __call__(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=HANG_GUARD_S,
            check=False,
        )

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words),
            env={**self.environment, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def program(self) -> list[str]:
        """A program that uses its session."""
        return [sys.executable, str(FAKES / "program.py")]

    def session_files(self) -> list[Path]:
        return sorted((self.runtime / "sessions").glob("*.json"))

    def log(self) -> str:
        return (self.state / "outboard/pool.log").read_text(encoding="utf-8")


def make_native(folder: Path) -> None:
    """A folder of native files whose worker is the fake one."""
    for name in ("bin", "lib/shim", "lib/softgpu"):
        (folder / name).mkdir(parents=True)
    (folder / "lib/shim/libcuda.so.1").touch()
    (folder / "lib/softgpu/libcuda.so.1").touch()
    worker = folder / "bin/outboard-worker"
    text = (FAKES / "worker.py").read_text(encoding="utf-8")
    worker.write_text(f"#!{sys.executable} -IS\n{text}", encoding="utf-8")
    worker.chmod(0o755)


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Poll until it holds; the guard is far above what it should take."""
    deadline = time.monotonic() + HANG_GUARD_S
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {HANG_GUARD_S:.0f} s: {what}"
        time.sleep(0.01)


@pytest.fixture
def outboard() -> Iterator[Outboard]:
    """The command line with a pool that the test has for itself."""
    with _own_pool() as made:
        yield made


@pytest.fixture(scope="module")
def shared_outboard() -> Iterator[Outboard]:
    """The same for a module's tests that leave the pool as it was."""
    with _own_pool() as made:
        yield made


@contextmanager
def _own_pool() -> Iterator[Outboard]:
    folder = Path(tempfile.mkdtemp(prefix="ob-"))  # short: a socket's path has 107 bytes
    made = Outboard(folder)
    make_native(made.native)
    try:
        yield made
    finally:
        made("pool", "stop", "--force")
        shutil.rmtree(folder)
