"""cuda-bindings and cuda-core as their own examples use them: driver API, NVRTC, linker, graphs.

SPDX-License-Identifier: Apache-2.0
"""

from collections.abc import Mapping
from typing import Any

import cases
import numpy as np
from cases import case
from cuda.bindings import driver, nvrtc, runtime

SOURCE = """
extern "C" __global__ void saxpy(float a, float* x, float* y, float* out, size_t n) {
  size_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = a * x[i] + y[i];
}"""


def check(answer: tuple[Any, ...]) -> Any:
    code, *values = answer
    if int(code) != 0:
        raise RuntimeError(repr(code))
    return values[0] if len(values) == 1 else tuple(values)


@case
def bindings_saxpy() -> Mapping[str, Any]:
    check(driver.cuInit(0))
    device = check(driver.cuDeviceGet(0))
    context = check(driver.cuDevicePrimaryCtxRetain(device))
    check(driver.cuCtxSetCurrent(context))
    program = check(nvrtc.nvrtcCreateProgram(SOURCE.encode(), b"saxpy.cu", 0, [], []))
    check(nvrtc.nvrtcCompileProgram(program, 1, [b"--gpu-architecture=compute_90"]))
    ptx = b" " * check(nvrtc.nvrtcGetPTXSize(program))
    check(nvrtc.nvrtcGetPTX(program, ptx))
    module = check(driver.cuModuleLoadData(np.char.array(ptx).ctypes.data))
    kernel = check(driver.cuModuleGetFunction(module, b"saxpy"))
    n = 4096
    x, y = np.arange(n, dtype=np.float32), np.ones(n, dtype=np.float32)
    out = np.zeros(n, dtype=np.float32)
    pointers = [check(driver.cuMemAlloc(n * 4)) for _ in range(3)]
    stream = check(driver.cuStreamCreate(0))
    check(driver.cuMemcpyHtoDAsync(pointers[0], x.ctypes.data, n * 4, stream))
    check(driver.cuMemcpyHtoDAsync(pointers[1], y.ctypes.data, n * 4, stream))
    values = [np.array([2.0], np.float32), *(np.array([int(p)], np.uint64) for p in pointers)]
    values.append(np.array([n], np.uint64))
    arguments = np.array([v.ctypes.data for v in values], dtype=np.uint64)
    check(driver.cuLaunchKernel(kernel, 16, 1, 1, 256, 1, 1, 0, stream, arguments.ctypes.data, 0))
    check(driver.cuMemcpyDtoHAsync(out.ctypes.data, pointers[2], n * 4, stream))
    check(driver.cuStreamSynchronize(stream))
    return {"out": out}


@case
def bindings_graph() -> Mapping[str, Any]:
    check(runtime.cudaSetDevice(0))
    stream = check(runtime.cudaStreamCreate())
    n = 1 << 16
    pointer = check(runtime.cudaMalloc(n))
    host = np.zeros(n, dtype=np.uint8)
    check(
        runtime.cudaStreamBeginCapture(
            stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeGlobal
        )
    )
    check(runtime.cudaMemsetAsync(pointer, 7, n, stream))
    check(
        runtime.cudaMemcpyAsync(
            host.ctypes.data, pointer, n, runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost, stream
        )
    )
    graph = check(runtime.cudaStreamEndCapture(stream))
    executable = check(runtime.cudaGraphInstantiate(graph, 0))
    check(runtime.cudaGraphLaunch(executable, stream))
    check(runtime.cudaStreamSynchronize(stream))
    nodes = check(runtime.cudaGraphGetNodes(graph, 0))
    return {"host": host, "nodes": nodes[-1]}


@case
def core_saxpy() -> Mapping[str, Any]:
    import cupy as cp
    from cuda.core import Device, LaunchConfig, Program, ProgramOptions, launch

    device = Device()
    device.set_current()
    stream = device.create_stream()
    major, minor = device.compute_capability
    program = Program(
        SOURCE, code_type="c++", options=ProgramOptions(std="c++17", arch=f"sm_{major}{minor}")
    )
    kernel = program.compile("cubin").get_kernel("saxpy")
    n = 10_000
    x, y = cp.arange(n, dtype=cp.float32), cp.ones(n, dtype=cp.float32)
    out = cp.zeros(n, dtype=cp.float32)
    device.sync()
    config = LaunchConfig(grid=(n + 255) // 256, block=256)
    pointers = [a.data.ptr for a in (x, y, out)]
    launch(stream, config, kernel, np.float32(3), *pointers, np.uint64(n))
    stream.sync()
    return {"out": out}


@case
def core_linker() -> Mapping[str, Any]:
    import cupy as cp
    from cuda.core import (
        Device,
        LaunchConfig,
        Linker,
        LinkerOptions,
        Program,
        ProgramOptions,
        launch,
    )

    device = Device()
    device.set_current()
    major, minor = device.compute_capability
    arch = f"sm_{major}{minor}"
    options = ProgramOptions(arch=arch, relocatable_device_code=True)
    parts = [
        Program(text, "c++", options=options).compile("ptx")
        for text in (
            'extern __device__ int twice(int); extern "C" __global__ void k(int* o){*o=twice(21);}',
            "__device__ int twice(int v) { return 2 * v; }",
        )
    ]
    linked = Linker(*parts, options=LinkerOptions(arch=arch)).link("cubin")
    out = cp.zeros(1, dtype=cp.int32)
    device.sync()
    stream = device.create_stream()
    launch(stream, LaunchConfig(grid=1, block=1), linked.get_kernel("k"), out.data.ptr)
    stream.sync()
    return {"out": out}


if __name__ == "__main__":
    cases.main()
