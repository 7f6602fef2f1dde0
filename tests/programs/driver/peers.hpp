// What programs on two devices of one server begin with.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "driver.hpp"

/// One of the devices, with its primary context.
struct Side {
  CUdevice device = 0;
  CUcontext context = nullptr;

  explicit Side(int ordinal) {
    CHECK(cuDeviceGet(&device, ordinal));
    CHECK(cuDevicePrimaryCtxRetain(&context, device));
  }
  ~Side() { CHECK(cuDevicePrimaryCtxRelease(device)); }
  Side(const Side&) = delete;
  Side& operator=(const Side&) = delete;

  void enter() const { CHECK(cuCtxSetCurrent(context)); }
};

inline void initialise_two_devices(const Program& program) {
  CHECK(cuInit(0));
  int count = 0;
  CHECK(cuDeviceGetCount(&count));
  if (count < 2) program.die("two devices are needed");
}
