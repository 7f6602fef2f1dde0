// The set of addresses that kernels may touch.
// SPDX-License-Identifier: Apache-2.0
#include "address_space.hpp"

#include <algorithm>

namespace softgpu {

const Range* RangeTable::find(uint64_t address, uint64_t bytes) const {
  auto it = std::upper_bound(ranges.begin(), ranges.end(), address,
                             [](uint64_t a, const Range& r) { return a < r.base; });
  if (it == ranges.begin()) return nullptr;
  --it;
  uint64_t in = address - it->base;
  return bytes <= it->size && in <= it->size - bytes ? &*it : nullptr;
}

AddressSpace::Impl::Impl() : current(new RangeTable) {}

AddressSpace::Impl::~Impl() {
  delete current.load();
  for (const RangeTable* t : retired) delete t;
}

void AddressSpace::Impl::publish(std::vector<Range> ranges) {
  auto* next = new RangeTable{std::move(ranges)};
  retired.push_back(current.exchange(next));
  // A reader that comes after this exchange sees the new table, so the old ones are nobody's as
  // soon as nobody reads at all.
  if (readers.load() == 0) {
    for (const RangeTable* t : retired) delete t;
    retired.clear();
  }
}

AddressSpace::AddressSpace() : impl(std::make_unique<Impl>()) {}
AddressSpace::~AddressSpace() = default;

void AddressSpace::add(Range range) {
  if (range.size == 0) return;
  std::lock_guard lock(impl->writers);
  std::vector<Range> out = impl->current.load()->ranges;
  uint64_t begin = range.base, end = range.base + range.size;
  std::erase_if(out, [&](const Range& r) {
    bool touches = r.base <= end && begin <= r.base + r.size;
    if (touches) {
      begin = std::min(begin, r.base);
      end = std::max(end, r.base + r.size);
    }
    return touches;
  });
  Range merged{begin, end - begin};
  out.insert(std::upper_bound(out.begin(), out.end(), merged,
                              [](const Range& a, const Range& b) { return a.base < b.base; }),
             merged);
  impl->publish(std::move(out));
}

void AddressSpace::remove(Range range) {
  if (range.size == 0) return;
  std::lock_guard lock(impl->writers);
  uint64_t begin = range.base, end = range.base + range.size;
  std::vector<Range> out;
  for (const Range& r : impl->current.load()->ranges) {
    uint64_t r_end = r.base + r.size;
    if (r_end <= begin || r.base >= end) {
      out.push_back(r);
      continue;
    }
    if (r.base < begin) out.push_back({r.base, begin - r.base});
    if (r_end > end) out.push_back({end, r_end - end});
  }
  impl->publish(std::move(out));
}

bool AddressSpace::contains(uint64_t address, uint64_t bytes) const {
  AddressSpaceReader reader(const_cast<AddressSpace&>(*this));
  return reader.table().find(address, bytes) != nullptr;
}

}  // namespace softgpu
