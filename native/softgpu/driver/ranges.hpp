// A best-fit allocator of address ranges: it hands out numbers and touches no memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace softgpu {

class RangeAllocator {
 public:
  /// Adds or gives back [base, base + size). Adjacent free ranges merge. Returns the merged range.
  std::pair<uint64_t, uint64_t> release(uint64_t base, uint64_t size);
  /// Takes `size` bytes at a multiple of `alignment` (a power of two), from the smallest free range
  /// that fits.
  std::optional<uint64_t> allocate(uint64_t size, uint64_t alignment);
  /// Takes exactly this range, which must be free.
  void take(uint64_t base, uint64_t size);

 private:
  void insert(uint64_t base, uint64_t size);
  void remove(std::map<uint64_t, uint64_t>::iterator range);

  std::map<uint64_t, uint64_t> by_base_;
  std::set<std::pair<uint64_t, uint64_t>> by_size_;  // (size, base)
};

}  // namespace softgpu
