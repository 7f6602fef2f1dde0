// Physical memory that programs map themselves.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <mutex>

#include "device.hpp"
#include "handles.hpp"

namespace softgpu {

/// What cuMemCreate makes: a memfd, so that it can be mapped at several addresses and passed to
/// other processes. Counts against its device until the last handle and mapping are gone.
struct PhysicalMemory {
  ~PhysicalMemory();
  /// Where all of it is mapped, for arrays whose tiles it is; 0 where the system refuses.
  uint64_t address();

  Device* device = nullptr;
  uint64_t bytes = 0;
  int fd = -1;
  CUmemAllocationProp properties{};
  bool counted = false;  ///< not when it was imported: then its maker counts it

 private:
  std::mutex mutex_;
  uint64_t address_ = 0;
};

HandleTable<PhysicalMemory, CUmemGenericAllocationHandle, 12>& physical_memories();

}  // namespace softgpu
