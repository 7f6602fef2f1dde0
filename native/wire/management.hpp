// The numbers that a client asks the server's NVML for, by what travels for each, with the numbers
// that go with the question.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace outboard::wire {

enum class ManagementQuestion : uint32_t {
  max_pcie_generation,
  max_pcie_width,
  pcie_generation,
  pcie_width,
  pcie_throughput,     ///< counter; KB/s, of the latest 20 ms
  nvlink_state,        ///< link
  nvlink_version,      ///< link
  nvlink_capability,   ///< link, capability
  nvlink_remote_type,  ///< link
  field,               ///< field, scope; with the value's type
  nvlink_remote,       ///< link; the other end's PCI domain << 16 | bus << 8 | device
  count
};

}  // namespace outboard::wire
