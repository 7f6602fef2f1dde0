// Best-fit allocation of address ranges.
// SPDX-License-Identifier: Apache-2.0
#include "worker/blocks.hpp"

#include <cassert>

namespace outboard::worker {

void Blocks::insert_free(Range range) {
  free_.emplace(range.base, range.bytes);
  by_size_.emplace(range.bytes, range.base);
  free_bytes_ += range.bytes;
}

void Blocks::erase_free(Range range) {
  free_.erase(range.base);
  by_size_.erase({range.bytes, range.base});
  free_bytes_ -= range.bytes;
}

void Blocks::add_region(Range region) {
  regions_.emplace(region.base, region.bytes);
  insert_free(region);
}

void Blocks::remove_region(Range region) {
  regions_.erase(region.base);
  erase_free(region);
}

std::optional<Range> Blocks::allocate(uint64_t bytes) {
  const uint64_t size = rounded(bytes);
  if (size < bytes || size == 0) return std::nullopt;
  const auto fit = by_size_.lower_bound({size, 0});
  if (fit == by_size_.end()) return std::nullopt;
  const Range found{fit->second, fit->first};
  erase_free(found);
  if (found.bytes > size) insert_free({found.base + size, found.bytes - size});
  return Range{found.base, size};
}

std::optional<Range> Blocks::release(Range range) {
  range.bytes = rounded(range.bytes);
  auto region = regions_.upper_bound(range.base);
  assert(region != regions_.begin());
  --region;
  const uint64_t region_end = region->first + region->second;
  auto next = free_.lower_bound(range.base);
  if (next != free_.end() && next->first == range.base + range.bytes && next->first < region_end) {
    const Range after{next->first, next->second};
    erase_free(after);
    range.bytes += after.bytes;
  }
  auto before = free_.lower_bound(range.base);
  if (before != free_.begin()) {
    --before;
    if (before->first + before->second == range.base && before->first >= region->first) {
      const Range joined{before->first, before->second};
      erase_free(joined);
      range.base = joined.base;
      range.bytes += joined.bytes;
    }
  }
  insert_free(range);
  if (range.base == region->first && range.bytes == region->second) return range;
  return std::nullopt;
}

}  // namespace outboard::worker
