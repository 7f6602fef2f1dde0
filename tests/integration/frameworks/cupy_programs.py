"""CuPy, unmodified: a raw kernel, elementwise arithmetic, reductions.

SPDX-License-Identifier: Apache-2.0

`python cupy_programs.py OUT` checks against NumPy and writes the results raw.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cupy as cp
import numpy as np

SOURCE = r"""
extern "C" __global__ void scaled_sum(const float* a, const float* b, float* c, float factor,
                                      int n) {
  const int i = blockDim.x * blockIdx.x + threadIdx.x;
  if (i < n) c[i] = a[i] * factor + b[i];
}
"""


def main(out: Path) -> None:
    rng = np.random.default_rng(13)
    a = rng.random(30_001, dtype=np.float32)
    b = rng.random(30_001, dtype=np.float32)
    device_a = cp.asarray(a)
    device_b = cp.asarray(b)

    kernel = cp.RawKernel(SOURCE, "scaled_sum")
    device_c = cp.empty_like(device_a)
    kernel((118,), (256,), (device_a, device_b, device_c, np.float32(0.5), np.int32(a.size)))
    raw = cp.asnumpy(device_c)
    assert np.array_equal(raw, a * np.float32(0.5) + b), "raw kernel"

    elementwise = cp.asnumpy(device_a * 2 + device_b)
    assert np.allclose(elementwise, a * 2 + b, rtol=1e-6), "elementwise"

    matrix = cp.asarray(rng.integers(-1000, 1000, (123, 257)))
    host = cp.asnumpy(matrix)
    assert int(matrix.sum()) == int(host.sum()), "sum of all"
    columns = cp.asnumpy(matrix.sum(axis=0))
    assert np.array_equal(columns, host.sum(axis=0)), "sum of columns"
    assert int(matrix.max()) == int(host.max()), "largest"
    total = float((device_a * 2 + 1).sum())
    assert abs(total - float((a.astype(np.float64) * 2 + 1).sum())) < 0.1, "sum of floats"

    with cp.cuda.using_allocator(cp.cuda.MemoryPool(cp.cuda.malloc_managed).malloc):
        managed = cp.asnumpy(cp.asarray(a) + 1)
    assert np.array_equal(managed, a + 1), "managed memory"

    results = (raw, elementwise, columns, np.float64(total), managed)
    out.write_bytes(b"".join(result.tobytes() for result in results))
    print("PASS on CUDA", cp.cuda.runtime.runtimeGetVersion())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
