"""The program by which `outboard netperf` measures: what a CUDA program gets of its connection.

SPDX-License-Identifier: Apache-2.0

It runs in a session, loads whatever `libcuda.so.1` the session gives it, and prints one line of
JSON. A copy of four bytes from the device is one round trip through the data plane with all that
belongs to it; large copies show the bandwidth. A real GPU copies faster than networks do.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from collections.abc import Callable

_DEVICE = 0
_WARM_UP = 20


class DriverFailed(Exception):
    """A driver call was refused; the message names it."""


class Cuda:
    """The few driver calls that are needed, on the first device."""

    def __init__(self, path: str = "libcuda.so.1") -> None:
        self._library = ctypes.CDLL(path)
        context = ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), _DEVICE)
        self._call("cuCtxSetCurrent", context)

    def allocate(self, size: int) -> ctypes.c_uint64:
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer

    def write(self, pointer: ctypes.c_uint64, source: ctypes.Array[ctypes.c_char]) -> None:
        self._call("cuMemcpyHtoD_v2", pointer, source, ctypes.c_size_t(len(source)))

    def read(self, target: ctypes.Array[ctypes.c_char], pointer: ctypes.c_uint64) -> None:
        self._call("cuMemcpyDtoH_v2", target, pointer, ctypes.c_size_t(len(target)))

    def synchronize(self) -> None:
        self._call("cuCtxSynchronize")

    def _call(self, name: str, *arguments: object) -> None:
        result = getattr(self._library, name)(*arguments)
        if result != 0:
            raise DriverFailed(f"{name} answered {result}")


def main() -> int:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(prog="netperf_program", description=__doc__)
    parser.add_argument("--size", type=int, required=True, help="bytes of one large copy")
    parser.add_argument("--trips", type=int, required=True, help="round trips to measure")
    parser.add_argument("--seconds", type=float, required=True, help="for each direction")
    given = parser.parse_args()
    try:
        measured = measure(Cuda(), given.size, given.trips, given.seconds)
    except (OSError, DriverFailed) as error:
        print(json.dumps({"error": str(error)}))
        return 1
    print(json.dumps(measured))
    return 0


def measure(cuda: Cuda, size: int, trips: int, seconds: float) -> dict[str, object]:
    """Round trips first, while nothing else is on the way; then each direction."""
    pointer = cuda.allocate(size)
    small = ctypes.create_string_buffer(4)
    large = ctypes.create_string_buffer(size)
    cuda.write(pointer, large)
    for _ in range(_WARM_UP):
        cuda.read(small, pointer)
    times_ns = []
    for _ in range(trips):
        began_ns = time.perf_counter_ns()
        cuda.read(small, pointer)
        times_ns.append(time.perf_counter_ns() - began_ns)
    times_ns.sort()
    return {
        "round_trips": trips,
        "round_trip_p50_us": times_ns[trips // 2] / 1000,
        "round_trip_p99_us": times_ns[min(trips - 1, trips * 99 // 100)] / 1000,
        "to_node_bytes_per_s": _rate(cuda, size, seconds, lambda: cuda.write(pointer, large)),
        "from_node_bytes_per_s": _rate(cuda, size, seconds, lambda: cuda.read(large, pointer)),
    }


def _rate(cuda: Cuda, size: int, seconds: float, copy: Callable[[], None]) -> int:
    copy()
    cuda.synchronize()
    moved, began = 0, time.perf_counter()
    while not moved or time.perf_counter() - began < seconds:
        copy()
        moved += size
    cuda.synchronize()
    return int(moved / (time.perf_counter() - began))


if __name__ == "__main__":
    raise SystemExit(main())
