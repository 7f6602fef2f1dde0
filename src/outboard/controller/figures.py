"""The figures of a GPU that agents read from NVML, and what Prometheus calls them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

_MIB = 1 / (1 << 20)

FiguresOf = Callable[[str, int], Mapping[str, float]]

# As NVIDIA's dcgm-exporter calls them, so that its dashboards work. What is not known is absent.
DEVICE_FIGURES = {
    "temperature_c": ("DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C)", 1.0),
    "power_w": ("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W)", 1.0),
    "utilization_percent": ("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %)", 1.0),
    "memory_used_bytes": ("DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB)", _MIB),
    "memory_free_bytes": ("DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB)", _MIB),
    "ecc_uncorrected": (
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
        "Uncorrectable memory errors since the driver started",
        1.0,
    ),
}
FIGURES = tuple(DEVICE_FIGURES)
