"""A CUDA program for a machine under test: keeps numbers on the device until it is told to check.

SPDX-License-Identifier: Apache-2.0

Runs inside the machine on its bare python3. Each line on stdin is one kernel that adds 1 to all
numbers; the end of stdin makes it compare them with what they have to be.
"""

from __future__ import annotations

import ctypes
import sys

NUMBERS = 4096
_PTX = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry add(.param .u64 numbers)
{
  .reg .b32 %r<3>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [numbers];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %rd2, %r1, 4;
  add.s64 %rd3, %rd1, %rd2;
  ld.global.u32 %r2, [%rd3];
  add.s32 %r2, %r2, 1;
  st.global.u32 [%rd3], %r2;
  ret;
}
"""
_BLOCK = 256


def main() -> int:
    cuda = ctypes.CDLL("libcuda.so.1")

    def call(name: str, *arguments: object) -> None:
        code = getattr(cuda, name)(*arguments)
        if code:
            print(f"ERROR {code} {name}", flush=True)
            raise SystemExit(1)

    device, context = ctypes.c_int(), ctypes.c_void_p()
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    address = ctypes.c_uint64()
    numbers = (ctypes.c_uint32 * NUMBERS)(*range(NUMBERS))
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    call("cuModuleLoadData", ctypes.byref(module), _PTX)
    call("cuModuleGetFunction", ctypes.byref(function), module, b"add")
    call("cuMemAlloc_v2", ctypes.byref(address), ctypes.sizeof(numbers))
    call("cuMemcpyHtoD_v2", address, numbers, ctypes.sizeof(numbers))
    print("READY", flush=True)
    rounds = 0
    for _line in sys.stdin:
        for first in range(0, NUMBERS, _BLOCK):
            part = ctypes.c_uint64(address.value + first * ctypes.sizeof(ctypes.c_uint32))
            arguments = (ctypes.c_void_p * 1)(ctypes.addressof(part))
            shape = (1, 1, 1, _BLOCK, 1, 1, 0, None)
            call("cuLaunchKernel", function, *shape, arguments, None)
        call("cuCtxSynchronize")
        rounds += 1
        print(f"ADDED {rounds}", flush=True)
    call("cuMemcpyDtoH_v2", numbers, address, ctypes.sizeof(numbers))
    right = list(numbers) == [number + rounds for number in range(NUMBERS)]
    print("PASS" if right else "WRONG", flush=True)
    return 0 if right else 1


if __name__ == "__main__":
    raise SystemExit(main())
