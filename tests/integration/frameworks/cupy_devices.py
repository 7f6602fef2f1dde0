"""CuPy, unmodified, on every device that it sees, and its arrays from one device to the next.

SPDX-License-Identifier: Apache-2.0

`python cupy_devices.py OUT` checks against NumPy and writes the results raw.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cupy as cp
import numpy as np

SOURCE = r"""
__device__ int calls = 0;
extern "C" __global__ void scale(const float* in, float* out, float factor, int n) {
  const int i = blockDim.x * blockIdx.x + threadIdx.x;
  if (i < n) out[i] = in[i] * factor;
  if (i == 0) atomicAdd(&calls, 1);
}
"""
COUNT = 3_000_001


def main(out: Path) -> None:
    values = np.random.default_rng(17).random(COUNT, dtype=np.float32)
    module = cp.RawModule(code=SOURCE)
    devices = cp.cuda.runtime.getDeviceCount()
    parts = []
    previous = None
    for number in range(devices):
        with cp.cuda.Device(number):
            # From the host on the first device, then from device to device.
            source = cp.asarray(values) if previous is None else cp.asarray(previous)
            assert source.device.id == number
            scaled = cp.empty_like(source)
            arguments = (source, scaled, np.float32(2), np.int32(COUNT))
            module.get_function("scale")(((COUNT + 255) // 256,), (256,), arguments)
            shifted = scaled + number
            calls = cp.ndarray((1,), cp.int32, module.get_global("calls"))
            assert int(calls[0]) == 1, "a module's variable is each device's own"
            parts.append(shifted)
            previous = shifted
    expected = values
    for number, part in enumerate(parts):
        expected = expected * np.float32(2) + np.float32(number)
        with cp.cuda.Device(number):
            found = cp.asnumpy(part)
        assert np.array_equal(found, expected), f"device {number}"
    out.write_bytes(expected.tobytes())
    print(f"PASS on {devices} devices")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
