"""Numba, unmodified: a vector addition, a matrix product in shared memory, a reduction.

SPDX-License-Identifier: Apache-2.0

`python numba_programs.py OUT` checks against NumPy and writes the results raw.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
from numba import cuda, float32
from numba.core.errors import NumbaPerformanceWarning

TILE = 16

warnings.simplefilter("ignore", NumbaPerformanceWarning)


@cuda.jit
def add(a, b, c):
    i = cuda.grid(1)
    if i < c.size:
        c[i] = a[i] + b[i]


@cuda.jit
def multiply(a, b, c):
    tile_a = cuda.shared.array((TILE, TILE), float32)
    tile_b = cuda.shared.array((TILE, TILE), float32)
    x, y = cuda.grid(2)
    tx = cuda.threadIdx.x
    ty = cuda.threadIdx.y
    total = float32(0.0)
    for step in range(a.shape[1] // TILE):
        tile_a[tx, ty] = a[x, ty + step * TILE]
        tile_b[tx, ty] = b[tx + step * TILE, y]
        cuda.syncthreads()
        for k in range(TILE):
            total += tile_a[tx, k] * tile_b[k, ty]
        cuda.syncthreads()
    c[x, y] = total


@cuda.reduce
def total_of(a, b):
    return a + b


def main(out: Path) -> None:
    rng = np.random.default_rng(11)
    a = rng.random(50_001, dtype=np.float32)
    b = rng.random(50_001, dtype=np.float32)
    c = np.zeros_like(a)
    add[(a.size + 255) // 256, 256](a, b, c)
    assert np.array_equal(c, a + b), "vector addition"

    left = rng.random((64, 96), dtype=np.float32)
    right = rng.random((96, 80), dtype=np.float32)
    device_product = cuda.device_array((64, 80), dtype=np.float32)
    multiply[(64 // TILE, 80 // TILE), (TILE, TILE)](
        cuda.to_device(left), cuda.to_device(right), device_product
    )
    product = device_product.copy_to_host()
    assert np.allclose(product, left @ right, rtol=1e-5), "matrix product"

    numbers = np.arange(20_000, dtype=np.float64)
    total = total_of(numbers)
    assert total == numbers.sum(), "reduction"

    managed = cuda.managed_array(1000, dtype=np.float32)
    for turn in range(3):
        managed[turn:] = turn
        add[4, 256](managed, managed, managed)
        cuda.synchronize()
    assert managed[:4].tolist() == [0, 4, 4, 4], "managed memory"

    results = (c, product, np.float64(total), np.array(managed))
    out.write_bytes(b"".join(result.tobytes() for result in results))
    print("PASS")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
