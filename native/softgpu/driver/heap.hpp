// The memory of one device from which cuMemAlloc, pools and module globals are served.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>

#include "ranges.hpp"

namespace softgpu {

/// Address space is reserved once; memory is counted and made visible to kernels in granules of
/// 2 MiB, as on a GPU, and small allocations share granules.
class Heap {
 public:
  static constexpr uint64_t kGranule = 2ull << 20;
  static constexpr uint64_t kAlignment = 512;

  /// `commit` is asked before a granule range comes into use (false: out of memory), `decommit` is
  /// told after it went out of use.
  Heap(std::function<bool(uint64_t base, uint64_t bytes)> commit,
       std::function<void(uint64_t base, uint64_t bytes)> decommit);

  /// Reserves at least `bytes` of address space; false where the system refuses.
  bool reserve(uint64_t bytes);
  /// Returns 0 when there is no memory left. `alignment` is a power of two.
  uint64_t allocate(uint64_t bytes, uint64_t alignment = kAlignment);
  /// The file behind the memory, by which other processes can map it; -1: there is none.
  int file() const { return file_; }
  uint64_t file_offset(uint64_t address) const { return address - start_; }
  /// `base` must be what allocate() returned.
  void release(uint64_t base);

 private:
  void release_granules(uint64_t base, uint64_t bytes);

  std::mutex mutex_;
  int file_ = -1;
  uint64_t start_ = 0;
  std::function<bool(uint64_t, uint64_t)> commit_;
  std::function<void(uint64_t, uint64_t)> decommit_;
  RangeAllocator granules_;
  RangeAllocator small_;
  std::map<uint64_t, uint64_t> sizes_;  // base -> rounded bytes of what is handed out
};

}  // namespace softgpu
