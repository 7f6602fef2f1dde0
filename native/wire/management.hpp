// The numbers that a client asks the server's NVML for, by what travels for each.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace outboard::wire {

enum class ManagementQuestion : uint32_t {
  max_pcie_generation,
  max_pcie_width,
  pcie_generation,
  pcie_width,
  pcie_sent,  ///< KB/s, of the latest 20 ms
  pcie_received,
  count
};

}  // namespace outboard::wire
