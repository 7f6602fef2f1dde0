"""Python programs fork, thread and end through Outboard as they do on the software GPU itself.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.integration.harness import Direct, Pool, eventually

FRAMEWORKS = Path(__file__).parent / "frameworks"
PROGRAM = FRAMEWORKS / "process_lives.py"
PYTHON = Path(sys.prefix) / "bin/python"
# The exit code that each case has.
CASES = {
    "forked_before_cuda": 0,
    "spawned_after_cuda": 0,
    "arrays_in_two_processes": 0,
    "forked_loaders_beside_cuda": 0,
    "forked_child_that_calls_cuda": 0,
    "many_threads": 0,
    "ends_with_work_queued": 0,
    "ends_with_a_thread_in_a_call": 7,
    "calls_cuda_at_exit": 0,
    "ends_at_once_with_work_queued": 5,
    "ends_by_an_exception": 1,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Kernels are compiled once for all cases."""
    return {"CUPY_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}


@pytest.mark.parametrize(("case", "code"), CASES.items(), ids=CASES)
def test_a_python_program_lives_and_ends_as_directly(
    direct: Direct, pool: Pool, cache: dict[str, str], case: str, code: int
) -> None:
    expected = direct.run(PYTHON, PROGRAM, case, extra=cache)
    assert expected.returncode == code, f"directly: {expected.describe()}"
    actual = pool.run(PYTHON, PROGRAM, case, extra=cache)
    assert actual.returncode == code, f"through Outboard: {actual.describe()}"
    assert actual.stdout == expected.stdout


@pytest.mark.parametrize(
    "case", ["forked_before_cuda", "forked_after_cuda", "many_threads", "ends_with_work_queued"]
)
def test_a_numba_program_lives_and_ends_as_directly(direct: Direct, pool: Pool, case: str) -> None:
    expected = direct.run(PYTHON, FRAMEWORKS / "numba_lives.py", case)
    assert expected.returncode == 0, f"directly: {expected.describe()}"
    actual = pool.run(PYTHON, FRAMEWORKS / "numba_lives.py", case)
    assert actual.returncode == 0, f"through Outboard: {actual.describe()}"
    assert actual.stdout == expected.stdout != ""


def test_a_signal_ends_a_python_program_that_waits_and_frees_its_gpu(own_pool: Pool) -> None:
    with own_pool.running(PYTHON, PROGRAM, "waits_to_be_ended") as program:
        program.read_until("WAITING")
        program.process.send_signal(signal.SIGTERM)
        assert program.finish().returncode == 128 + signal.SIGTERM
    eventually("its bytes are free", lambda: own_pool.json("sessions")["sessions"] == [])
    again = own_pool.run(PYTHON, PROGRAM, "calls_cuda_at_exit")
    assert again.returncode == 0, again.describe()
