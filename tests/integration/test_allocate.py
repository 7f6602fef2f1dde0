"""`outboard.allocate`: GPUs inside a Python program, from before CUDA is loaded to the block's end.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sys

from tests.integration.harness import Pool, eventually, run_program

_PROGRAM = """
import ctypes, subprocess, sys
import outboard
from outboard.errors import OutboardError

with outboard.allocate(gpus=1, share=0.25) as allocation:
    cuda = ctypes.CDLL("libcuda.so.1")
    assert cuda.cuInit(0) == 0
    total, device = ctypes.c_size_t(), ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), 0)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(total), device)
    print("here", total.value)
    child = "import ctypes; print('child', ctypes.CDLL('libcuda.so.1').cuInit(0), flush=True)"
    sys.stdout.flush()
    subprocess.run([sys.executable, "-c", child], check=True)
try:
    outboard.allocate()
except OutboardError as error:
    print("again", error.code)
"""


def test_a_program_and_its_children_have_what_it_allocates(pool: Pool) -> None:
    total = pool.total_bytes()
    outcome = run_program([sys.executable, "-c", _PROGRAM], pool.environment)
    assert outcome.returncode == 0, outcome.describe()
    here, child, again = outcome.stdout.splitlines()
    assert abs(int(here.split()[1]) - total // 4) <= 8 << 20
    assert (child, again) == ("child 0", "again configuration")
    assert pool.json("sessions")["sessions"] == []


def test_a_killed_program_gives_its_gpus_back(pool: Pool) -> None:
    program = "import os, outboard; outboard.allocate(share=0.25); os.kill(os.getpid(), 9)"
    outcome = run_program([sys.executable, "-c", program], pool.environment)
    assert outcome.returncode == -9
    # Its holder sees the end by itself.
    eventually("its session has ended", lambda: not pool.json("sessions")["sessions"])
