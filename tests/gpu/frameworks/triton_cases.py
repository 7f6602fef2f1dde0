"""Triton: vector add, softmax, matrix products with pointers and with tensor maps.

SPDX-License-Identifier: Apache-2.0
"""

from collections.abc import Mapping
from typing import Any

import cases
import torch
import triton
import triton.language as tl
from cases import case
from triton.tools.tensor_descriptor import TensorDescriptor


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to("cuda", dtype)


@triton.jit
def add_kernel(x, y, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i, i < n) + tl.load(y + i, i < n), i < n)


@triton.jit
def softmax_kernel(x, out, columns, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row, i = tl.program_id(0), tl.arange(0, BLOCK)
    v = tl.load(x + row * columns + i, i < columns, other=-float("inf"))
    e = tl.exp(v - tl.max(v, 0))
    tl.store(out + row * columns + i, e / tl.sum(e, 0), i < columns)


@triton.jit
def matmul_kernel(  # type: ignore[no-untyped-def]
    a, b, c, K, M: tl.constexpr, N: tl.constexpr, S: tl.constexpr
):
    m, n = tl.program_id(0), tl.program_id(1)
    total = tl.zeros((M, N), dtype=tl.float32)
    for k in range(0, K, S):
        total += tl.dot(a.load([m * M, k]), b.load([k, n * N]))
    c.store([m * M, n * N], total.to(tl.float16))


@triton.autotune([triton.Config({"BLOCK": n}) for n in (128, 256)], key=["n"])
@triton.jit
def scale_kernel(x, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i, i < n) * 3, i < n)


@case
def vector_add() -> Mapping[str, Any]:
    x, y = draw(98_432), draw(98_433)[1:]
    out = torch.empty_like(x)
    add_kernel[(triton.cdiv(x.numel(), 1024),)](x, y, out, x.numel(), BLOCK=1024)
    return {"out": out}


@case
def softmax() -> Mapping[str, Any]:
    x = draw(1823, 781)
    out = torch.empty_like(x)
    softmax_kernel[(x.shape[0],)](x, out, x.shape[1], BLOCK=1024)
    return {"out": out}


@case
def matmul_tensor_map() -> Mapping[str, Any]:
    a, b = draw(512, 256, dtype=torch.float16), draw(256, 384, dtype=torch.float16)
    c = torch.empty(512, 384, device="cuda", dtype=torch.float16)
    maps = [
        TensorDescriptor.from_tensor(t, s)
        for t, s in ((a, [128, 64]), (b, [64, 128]), (c, [128, 128]))
    ]
    matmul_kernel[(4, 3)](*maps, 256, M=128, N=128, S=64)
    return {"c": c}


@case
def autotuned() -> Mapping[str, Any]:
    x = draw(10_000)
    out = torch.empty_like(x)
    scale_kernel[lambda meta: (triton.cdiv(10_000, meta["BLOCK"]),)](x, out, 10_000)
    return {"out": out}


if __name__ == "__main__":
    cases.main()
