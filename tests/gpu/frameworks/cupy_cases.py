"""CuPy: arithmetic, RawKernel, FFT, SVD, random, sort, sparse, streams, pools, textures.

SPDX-License-Identifier: Apache-2.0
"""

from collections.abc import Mapping
from typing import Any

import cases
import cupy as cp
import numpy as np
from cases import case
from cupyx.scipy import sparse as cusparse


@case
def elementwise() -> Mapping[str, Any]:
    a = cp.asarray(np.linspace(0, 9, 10_000, dtype=np.float32)).reshape(100, 100)
    return {"sum": (a * 2 + 1).sum(), "exp": cp.exp(-a), "where": cp.where(a > 4, a, -a)}


@case
def reductions() -> Mapping[str, Any]:
    a = cp.asarray(np.arange(1_000_000, dtype=np.float64) % 977)
    return {"max": a.max(), "mean": a.mean(), "cumsum": a.cumsum(), "std": a.std()}


@cp.fuse
def hypotenuse(u: Any, v: Any) -> Any:
    return cp.sqrt(u * u + v)


@case
def raw_kernel() -> Mapping[str, Any]:
    code = r"""
extern "C" __global__ void axpy(float a, const float* x, float* y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] += a * x[i];
}"""
    x, y = cp.arange(1000, dtype=cp.float32), cp.ones(1000, dtype=cp.float32)
    cp.RawKernel(code, "axpy")((4,), (256,), (np.float32(2), x, y, np.int32(1000)))
    return {"y": y, "fused": hypotenuse(x, y)}


@case
def raw_module_constant() -> Mapping[str, Any]:
    code = r"""
__constant__ float table[16]; __device__ int counter;
extern "C" __global__ void read(float* out) {
  out[threadIdx.x] = table[threadIdx.x]; atomicAdd(&counter, 1); }"""
    module = cp.RawModule(code=code)
    table = cp.ndarray(16, cp.float32, module.get_global("table"))
    table[...] = cp.arange(16, dtype=cp.float32)
    counter = cp.ndarray(1, cp.int32, module.get_global("counter"))
    counter[...] = 0
    out = cp.zeros(16, dtype=cp.float32)
    module.get_function("read")((1,), (16,), (out,))
    return {"out": out, "counter": counter}


@case
def fft() -> Mapping[str, Any]:
    a = cp.asarray(np.random.default_rng(1).random((16, 1024)))
    return {"fft": cp.fft.fft(a), "fft2": cp.fft.fft2(a), "back": cp.fft.irfft(cp.fft.rfft(a))}


@case
def linalg() -> Mapping[str, Any]:
    a = cp.asarray(np.random.default_rng(2).random((64, 64)))
    return {
        "svd": cp.linalg.svd(a)[1],
        "solve": cp.linalg.solve(a, cp.ones(64)),
        "matmul": a @ a,
        "eigh": cp.linalg.eigh(a + a.T)[0],
    }


@case
def random_numbers() -> Mapping[str, Any]:
    cp.random.seed(5)
    return {"normal": cp.random.standard_normal(1000), "integers": cp.random.randint(0, 99, 1000)}


@case
def sorting() -> Mapping[str, Any]:
    a = cp.asarray(np.random.default_rng(3).integers(0, 1 << 30, 100_000))
    return {"sort": cp.sort(a), "argsort": cp.argsort(a), "unique": cp.unique(a % 1000)}


@case
def sparse() -> Mapping[str, Any]:
    dense = np.random.default_rng(4).random((300, 300))
    dense[dense < 0.9] = 0
    matrix = cusparse.csr_matrix(cp.asarray(dense))
    return {"product": matrix @ cp.ones(300), "square": (matrix @ matrix).todense()}


@case
def streams_and_events() -> Mapping[str, Any]:
    results = []
    for i in range(4):
        with cp.cuda.Stream(non_blocking=True) as stream:
            a = cp.full(10_000, i, dtype=cp.float64)
            results.append((a * 3 + 1).sum())
            stream.synchronize()
    called: list[int] = []
    stream = cp.cuda.Stream()
    stream.launch_host_func(lambda value: called.append(value), 5)
    stream.synchronize()
    return {"sums": [float(r) for r in results], "called": called}


@case
def memory_pool() -> Mapping[str, Any]:
    pool = cp.get_default_memory_pool()
    a = cp.ones(1 << 20, dtype=cp.float32)
    used = pool.used_bytes() >= 4 << 20
    with cp.cuda.using_allocator(cp.cuda.MemoryAsyncPool().malloc):
        b = cp.arange(1 << 16, dtype=cp.float32) * 2
    pinned = cp.cuda.alloc_pinned_memory(4096)
    host = np.frombuffer(pinned, np.float32, 1024)
    host[...] = 7
    c = cp.empty(1024, dtype=cp.float32)
    c.set(host)
    return {"a": a.sum(), "used": used, "b": b, "c": c}


@case
def managed_memory() -> Mapping[str, Any]:
    with cp.cuda.using_allocator(cp.cuda.MemoryPool(cp.cuda.malloc_managed).malloc):
        a = cp.arange(100_000, dtype=cp.float32)
        b = cp.sqrt(a) * 2
    kind = cp.cuda.runtime.pointerGetAttributes(a.data.ptr).type
    return {"kind": kind, "b": b, "sum": b.sum()}


@case
def texture() -> Mapping[str, Any]:
    code = r"""
extern "C" __global__ void fetch(float* out, cudaTextureObject_t tex, int w, int h) {
  int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x < w && y < h) out[y * w + x] = tex2D<float>(tex, x + 0.25f, y + 0.5f);
}"""
    from cupy.cuda import runtime, texture

    w, h = 64, 48
    channel = texture.ChannelFormatDescriptor(32, 0, 0, 0, runtime.cudaChannelFormatKindFloat)
    array = texture.CUDAarray(channel, w, h)
    array.copy_from(np.random.default_rng(6).random((h, w), dtype=np.float32))
    resource = texture.ResourceDescriptor(runtime.cudaResourceTypeArray, cuArr=array)
    address = (runtime.cudaAddressModeClamp, runtime.cudaAddressModeClamp)
    description = texture.TextureDescriptor(
        address, runtime.cudaFilterModeLinear, runtime.cudaReadModeElementType
    )
    object_ = texture.TextureObject(resource, description)
    out = cp.zeros((h, w), dtype=cp.float32)
    cp.RawKernel(code, "fetch")((4, 3), (16, 16), (out, object_, w, h))
    return {"out": out}


@case
def graph() -> Mapping[str, Any]:
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        a = cp.zeros(1000)
        stream.synchronize()
        stream.begin_capture()
        cp.add(a, 1, out=a)
        captured = stream.end_capture()
        for _ in range(5):
            captured.launch(stream)
        stream.synchronize()
    return {"a": a}


if __name__ == "__main__":
    cases.main()
