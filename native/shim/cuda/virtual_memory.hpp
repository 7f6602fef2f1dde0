// Physical memory of the program's own, for those who map it other than at addresses.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>

namespace outboard::shim {

struct Device;

/// Memory that the tiles of arrays may have.
struct TileMemory {
  uint64_t id = 0;  ///< 0: the handle is not of such memory
  const Device* device = nullptr;
  uint64_t bytes = 0;
};

TileMemory find_tile_memory(CUmemGenericAllocationHandle value);

}  // namespace outboard::shim
