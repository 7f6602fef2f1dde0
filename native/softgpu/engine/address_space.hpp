// The published form of an AddressSpace, for look-ups while kernels run.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <mutex>
#include <vector>

#include "engine.hpp"

namespace softgpu {

/// Sorted, disjoint, not adjacent.
struct RangeTable {
  std::vector<Range> ranges;

  /// The range that holds [address, address + bytes), or null.
  const Range* find(uint64_t address, uint64_t bytes) const;
};

/// Writers replace the table as a whole. A table that was replaced is kept until no reader is left:
/// readers only count themselves, so look-ups take no lock.
struct AddressSpace::Impl {
  std::mutex writers;
  std::atomic<const RangeTable*> current;
  std::atomic<int> readers{0};
  std::vector<const RangeTable*> retired;

  Impl();
  ~Impl();
  void publish(std::vector<Range> ranges);
};

/// Keeps tables alive while in scope.
class AddressSpaceReader {
 public:
  explicit AddressSpaceReader(AddressSpace& space) : impl_(*space.impl) {
    impl_.readers.fetch_add(1);
  }
  ~AddressSpaceReader() { impl_.readers.fetch_sub(1); }
  AddressSpaceReader(const AddressSpaceReader&) = delete;
  AddressSpaceReader& operator=(const AddressSpaceReader&) = delete;
  const RangeTable& table() const { return *impl_.current.load(); }

 private:
  AddressSpace::Impl& impl_;
};

}  // namespace softgpu
