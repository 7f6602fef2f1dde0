// Best-fit allocation of address ranges within regions that come and go; it touches no memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace outboard::worker {

/// A run of addresses.
struct Range {
  uint64_t base = 0;
  uint64_t bytes = 0;
};

/// Free ranges never join across two regions, so that a region which is wholly free can be given
/// back.
class Blocks {
 public:
  /// `alignment_bytes` is a power of two; every size is rounded up to it.
  explicit Blocks(uint64_t alignment_bytes) : alignment_bytes_(alignment_bytes) {}

  /// `region` is aligned and overlaps no other.
  void add_region(Range region);
  /// The smallest free range that holds `bytes`, lowest address first.
  std::optional<Range> allocate(uint64_t bytes);
  /// Frees what allocate() gave; returns the region if nothing in it is in use any more.
  std::optional<Range> release(Range range);
  /// Forgets a region that is wholly free.
  void remove_region(Range region);

  uint64_t rounded(uint64_t bytes) const {
    return (bytes + alignment_bytes_ - 1) & ~(alignment_bytes_ - 1);
  }
  uint64_t free_bytes() const { return free_bytes_; }

 private:
  void insert_free(Range range);
  void erase_free(Range range);

  uint64_t alignment_bytes_;
  uint64_t free_bytes_ = 0;
  std::map<uint64_t, uint64_t> regions_;             ///< base → bytes
  std::map<uint64_t, uint64_t> free_;                ///< base → bytes
  std::set<std::pair<uint64_t, uint64_t>> by_size_;  ///< bytes, base
};

}  // namespace outboard::worker
