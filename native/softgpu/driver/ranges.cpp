// The best-fit allocator of address ranges.
// SPDX-License-Identifier: Apache-2.0
#include "ranges.hpp"

#include <cassert>
#include <iterator>

namespace softgpu {

void RangeAllocator::insert(uint64_t base, uint64_t size) {
  if (size == 0) return;
  by_base_[base] = size;
  by_size_.insert({size, base});
}

void RangeAllocator::remove(std::map<uint64_t, uint64_t>::iterator range) {
  by_size_.erase({range->second, range->first});
  by_base_.erase(range);
}

std::pair<uint64_t, uint64_t> RangeAllocator::release(uint64_t base, uint64_t size) {
  auto next = by_base_.lower_bound(base);
  if (next != by_base_.end() && next->first == base + size) {
    size += next->second;
    auto gone = next++;
    remove(gone);
  }
  if (next != by_base_.begin()) {
    auto before = std::prev(next);
    if (before->first + before->second == base) {
      base = before->first;
      size += before->second;
      remove(before);
    }
  }
  insert(base, size);
  return {base, size};
}

std::optional<uint64_t> RangeAllocator::allocate(uint64_t size, uint64_t alignment) {
  for (auto it = by_size_.lower_bound({size, 0}); it != by_size_.end(); ++it) {
    auto [length, base] = *it;
    uint64_t start = (base + alignment - 1) & ~(alignment - 1);
    if (start + size > base + length) continue;
    take(start, size);
    return start;
  }
  return std::nullopt;
}

void RangeAllocator::take(uint64_t base, uint64_t size) {
  auto range = std::prev(by_base_.upper_bound(base));
  uint64_t from = range->first;
  uint64_t end = from + range->second;
  assert(from <= base && base + size <= end);
  remove(range);
  insert(from, base - from);
  insert(base + size, end - base - size);
}

}  // namespace softgpu
