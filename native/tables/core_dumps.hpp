// What programs set for core dumps of a GPU, the same for every libcuda.so.1.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>

namespace outboard {

/// The settings of a context (its number and flags), or with number 0 those that contexts begin
/// with. They are kept and told; whether a dump is written is the driver's affair.
struct CoreDumpOwner {
  uint64_t context = 0;
  unsigned flags = 0;
};
CUresult get_core_dump(CoreDumpOwner owner, CUcoredumpSettings what, void* value, size_t* size);
CUresult set_core_dump(CoreDumpOwner owner, CUcoredumpSettings what, const void* value,
                       const size_t* size);

}  // namespace outboard
