"""What a monitor reads from NVML is what the server's own NVML says of the device.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sys

from tests.integration.harness import Direct, Pool

_LINK = """
import ctypes
nvml = ctypes.CDLL("libnvidia-ml.so.1")
device, number = ctypes.c_void_p(), ctypes.c_uint()
assert nvml.nvmlInit_v2() == 0
assert nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)) == 0
for name, *more in (
    ("MaxPcieLinkGeneration",),
    ("MaxPcieLinkWidth",),
    ("CurrPcieLinkGeneration",),
    ("CurrPcieLinkWidth",),
    ("PcieThroughput", 0),
    ("PcieThroughput", 1),
):
    number.value = 999
    result = getattr(nvml, "nvmlDeviceGet" + name)(device, *more, ctypes.byref(number))
    print(name, result, number.value)
print("without a place", nvml.nvmlDeviceGetMaxPcieLinkWidth(device, None))
print("of no counter", nvml.nvmlDeviceGetPcieThroughput(device, 7, ctypes.byref(number)))
"""


def test_the_link_to_the_device_is_the_servers(direct: Direct, pool: Pool) -> None:
    expected = direct.run(sys.executable, "-c", _LINK)
    assert expected.returncode == 0, f"directly: {expected.describe()}"
    assert "CurrPcieLinkWidth 0 8\n" in expected.stdout
    assert "without a place 2\n" in expected.stdout
    actual = pool.run(sys.executable, "-c", _LINK)
    assert actual.returncode == 0, f"through Outboard: {actual.describe()}"
    assert actual.stdout == expected.stdout
