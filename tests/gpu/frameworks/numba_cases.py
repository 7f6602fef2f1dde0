"""Numba: kernels, atomics, shared memory, streams, reductions.

SPDX-License-Identifier: Apache-2.0
"""

from collections.abc import Mapping
from typing import Any

import cases
import numpy as np
from cases import case
from numba import cuda, float32

RNG = np.random.default_rng(7)


@cuda.jit
def add(a, b, c):  # type: ignore[no-untyped-def]
    i = cuda.grid(1)
    if i < c.size:
        c[i] = a[i] + b[i]


@cuda.jit
def histogram(values, bins):  # type: ignore[no-untyped-def]
    i = cuda.grid(1)
    if i < values.size:
        cuda.atomic.add(bins, values[i], 1)


@cuda.jit
def tiled(a, b, c):  # type: ignore[no-untyped-def]
    x, y = cuda.grid(2)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    sa = cuda.shared.array((16, 16), float32)
    sb = cuda.shared.array((16, 16), float32)
    total = float32(0.0)
    for k in range(a.shape[1] // 16):
        sa[tx, ty] = a[x, ty + k * 16]
        sb[tx, ty] = b[tx + k * 16, y]
        cuda.syncthreads()
        for j in range(16):
            total += sa[tx, j] * sb[j, ty]
        cuda.syncthreads()
    c[x, y] = total


@cuda.reduce
def total(a, b):  # type: ignore[no-untyped-def]
    return a + b


@case
def vector_add() -> Mapping[str, Any]:
    a, b = RNG.random(100_000, dtype=np.float32), RNG.random(100_000, dtype=np.float32)
    c = np.zeros_like(a)
    add[391, 256](a, b, c)
    return {"right": (c == a + b).all()}


@case
def atomics() -> Mapping[str, Any]:
    values = np.random.default_rng(1).integers(0, 32, 50_000)
    bins = np.zeros(32, dtype=np.int32)
    histogram[196, 256](values, bins)
    return {"bins": bins}


@case
def shared_memory() -> Mapping[str, Any]:
    a = np.random.default_rng(2).random((64, 96), dtype=np.float32)
    b = np.random.default_rng(3).random((96, 48), dtype=np.float32)
    c = np.zeros((64, 48), dtype=np.float32)
    tiled[(4, 3), (16, 16)](a, b, c)
    return {"c": c}


@case
def streams() -> Mapping[str, Any]:
    stream = cuda.stream()
    with cuda.pinned(np.zeros(1)):
        a = cuda.to_device(np.arange(1000, dtype=np.float32), stream=stream)
        c = cuda.device_array_like(a)
        add[4, 256, stream](a, a, c)
        host = c.copy_to_host(stream=stream)
    stream.synchronize()
    event = cuda.event()
    event.record(stream)
    event.synchronize()
    return {"host": host}


@case
def mapped_memory() -> Mapping[str, Any]:
    a = cuda.mapped_array(1000, dtype=np.float32)
    a[:] = 3
    add[4, 256](a, a, a)
    cuda.synchronize()
    return {"a": np.array(a)}


@case
def managed_memory() -> Mapping[str, Any]:
    a = cuda.managed_array(1000, dtype=np.float32)
    for turn in range(3):
        a[turn:] = turn
        add[4, 256](a, a, a)
        cuda.synchronize()
    return {"a": np.array(a)}


@case
def reduction() -> Mapping[str, Any]:
    return {"total": total(np.arange(10_000, dtype=np.float64))}


if __name__ == "__main__":
    cases.main()
