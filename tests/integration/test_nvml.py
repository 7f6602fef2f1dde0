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


_PEERS = """
import ctypes
nvml = ctypes.CDLL("libnvidia-ml.so.1")
assert nvml.nvmlInit_v2() == 0
devices = [ctypes.c_void_p(), ctypes.c_void_p()]
for index, device in enumerate(devices):
    assert nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) == 0
number = ctypes.c_uint()
for index in (1, 0):  # of writes, of reads
    result = nvml.nvmlDeviceGetP2PStatus(*devices, index, ctypes.byref(number))
    print("between them", index, result, number.value)
for device in devices:
    for name, *more in (
        ("State", 0),
        ("Version", 0),
        ("Capability", 0, 0),
        ("Capability", 0, 3),
        ("RemoteDeviceType", 0),
        ("State", 1),
        ("State", 99),
    ):
        number.value = 999
        link = getattr(nvml, "nvmlDeviceGetNvLink" + name)
        print(name, *more, link(device, *more, ctypes.byref(number)), number.value)
    fields = (ctypes.c_uint * 20)()  # two values of 40 bytes: field, scope, …, type, status, value
    fields[0], fields[10], fields[11] = 165, 165, 1
    fields[8] = fields[18] = 0
    print(nvml.nvmlDeviceGetFieldValues(device, 2, fields), fields[7], fields[8], fields[17])
    pci = ctypes.create_string_buffer(256)  # domain, bus, device at 16; the bus id at 36
    print(nvml.nvmlDeviceGetNvLinkRemotePciInfo_v2(device, 0, pci), pci.raw[16:28], pci[36:52])
"""


def test_the_links_between_devices_are_the_servers(direct: Direct, own_pool: Pool) -> None:
    two = {"SOFTGPU_DEVICES": "2"}
    expected = direct.run(sys.executable, "-c", _PEERS, extra=two)
    assert expected.returncode == 0, f"directly: {expected.describe()}"
    assert "between them 0 0 0\n" in expected.stdout
    assert "State 0 0 1\n" in expected.stdout
    assert "State 1 2 999\n" in expected.stdout
    own_pool.options.update(two)
    actual = own_pool.run(sys.executable, "-c", _PEERS, options=("-n", "2"))
    assert actual.returncode == 0, f"through Outboard: {actual.describe()}"
    assert actual.stdout == expected.stdout
