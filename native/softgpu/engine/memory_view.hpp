// What a block may touch, and the windows through which its accesses are checked.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "address_space.hpp"
#include "handlers.hpp"

namespace softgpu::simt {

/// One per executor; the block-dependent parts change as it goes from group to group.
class MemoryView {
 public:
  const AddressSpaceReader* space = nullptr;
  Window shared;                ///< base 0
  Window local;                 ///< base 0, of the running group; lane_stride is set
  Window param;                 ///< base 0
  Window global;                ///< the last range hit
  Window generic;               ///< the last window hit; its base is a host address
  char* local_begin = nullptr;  ///< of the whole block
  uint64_t local_bytes = 0;

  Window* window(MemorySpace s) {
    switch (s) {
      case MemorySpace::shared:
        return &shared;
      case MemorySpace::local:
        return &local;
      case MemorySpace::param:
        return &param;
      case MemorySpace::global:
        return &global;
      default:
        return &generic;
    }
  }
};

}  // namespace softgpu::simt
