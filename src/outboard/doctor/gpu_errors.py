"""GPU errors as NVML tells them: uncorrected memory errors, rows to be replaced, heat.

SPDX-License-Identifier: Apache-2.0

NVML itself by ctypes: four calls are not worth a dependency on machines that have no GPU.
"""

from __future__ import annotations

import ctypes
from typing import Any

_UNCORRECTED, _SINCE_BOOT = 1, 0  # nvmlMemoryErrorType_t, nvmlEccCounterType_t
_GPU_SENSOR, _SLOWDOWN = 0, 1  # nvmlTemperatureSensors_t, nvmlTemperatureThresholds_t


class Nvml:
    """An initialised library. What a GPU does not support is None, never 0."""

    def __init__(self, path: str) -> None:
        """Raises `OSError` if the library is missing or does not start."""
        self._library: Any = ctypes.CDLL(path)
        result = self._library.nvmlInit_v2()
        if result != 0:
            raise OSError(f"nvmlInit answered {result}")

    def count(self) -> int:
        return self._number(ctypes.c_uint, "nvmlDeviceGetCount_v2") or 0

    def device(self, index: int) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle))
        return handle

    def uncorrected_errors(self, device: ctypes.c_void_p) -> int | None:
        """Memory errors since the machine started that ECC could not correct."""
        name = "nvmlDeviceGetTotalEccErrors"
        return self._number(ctypes.c_ulonglong, name, device, _UNCORRECTED, _SINCE_BOOT)

    def rows(self, device: ctypes.c_void_p) -> tuple[int, int] | None:
        """Whether rows wait to be replaced, and whether that has failed."""
        found = [ctypes.c_uint() for _ in range(4)]
        result = self._call(
            "nvmlDeviceGetRemappedRows", device, *(ctypes.byref(one) for one in found)
        )
        return None if result != 0 else (found[2].value, found[3].value)

    def degrees_below_slowdown(self, device: ctypes.c_void_p) -> int | None:
        """°C until the GPU slows itself down."""
        now = self._number(ctypes.c_uint, "nvmlDeviceGetTemperature", device, _GPU_SENSOR)
        most = self._number(ctypes.c_uint, "nvmlDeviceGetTemperatureThreshold", device, _SLOWDOWN)
        return None if now is None or most is None else most - now

    def _number(self, kind: Any, name: str, *arguments: object) -> int | None:
        value = kind()
        result = self._call(name, *arguments, ctypes.byref(value))
        return int(value.value) if result == 0 else None

    def _call(self, name: str, *arguments: object) -> int:
        try:
            return int(getattr(self._library, name)(*arguments))
        except AttributeError:
            return -1  # an older library


def gpu_errors(nvml: Nvml) -> tuple[list[str], list[str], int]:
    """What is grave, what is to be watched, and how many GPUs were looked at."""
    grave: list[str] = []
    lesser: list[str] = []
    count = nvml.count()
    for index in range(count):
        device = nvml.device(index)
        uncorrected = nvml.uncorrected_errors(device)
        if uncorrected:
            grave.append(f"GPU {index}: {uncorrected} uncorrected memory errors since boot")
        pending, failed = nvml.rows(device) or (0, 0)
        if failed:
            grave.append(f"GPU {index}: memory rows could not be replaced: the GPU is worn out")
        elif pending:
            lesser.append(f"GPU {index}: memory rows are replaced at its next reset")
        below = nvml.degrees_below_slowdown(device)
        if below is not None and below <= 0:
            lesser.append(f"GPU {index}: so hot that it slows itself down")
    return grave, lesser, count
