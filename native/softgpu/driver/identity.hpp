// What a software GPU is called: shared by its driver and its NVML, which must agree.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace softgpu {

inline constexpr char kDeviceName[] = "Software GPU (CPU, for testing)";

struct Identity {
  unsigned char uuid[16];
  int pci_domain;
  int pci_bus;
  int pci_device;
};

/// The same on this machine for this index, whatever the process.
Identity identity(int ordinal);

}  // namespace softgpu
