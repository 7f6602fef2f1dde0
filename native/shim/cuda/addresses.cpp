// The table of address ranges.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/addresses.hpp"

#include <mutex>
#include <utility>
#include <vector>

#include "shim/cuda/objects.hpp"
#include "shim/cuda/pool.hpp"

namespace outboard::shim {

bool Addresses::add(Range range) {
  const std::unique_lock guard(mutex_);
  const auto after = ranges_.upper_bound(range.base);
  if (after != ranges_.end() && after->first - range.base < range.bytes) return false;
  if (after != ranges_.begin()) {
    const Range& before = std::prev(after)->second;
    if (range.base - before.base < before.bytes) return false;
  }
  range.buffer_id = ++last_id_;
  ranges_.emplace_hint(after, range.base, range);
  return true;
}

bool Addresses::remove(uint64_t base, MemoryKind kind, MemoryKind or_kind, Range* removed) {
  const std::unique_lock guard(mutex_);
  const auto found = ranges_.find(base);
  if (found == ranges_.end()) return false;
  if (found->second.kind != kind && found->second.kind != or_kind) return false;
  if (removed != nullptr) *removed = found->second;
  ranges_.erase(found);
  return true;
}

void Addresses::set_partner(uint64_t base, uint64_t alias) {
  const std::unique_lock guard(mutex_);
  if (const auto found = ranges_.find(base); found != ranges_.end()) found->second.partner = alias;
}

bool Addresses::find(uint64_t address, Range* range) const {
  const std::shared_lock guard(mutex_);
  auto found = ranges_.upper_bound(address);
  if (found == ranges_.begin()) return false;
  --found;
  if (address - found->first >= found->second.bytes) return false;
  *range = found->second;
  return true;
}

bool Addresses::is_device(uint64_t address, uint64_t bytes, Range* range) const {
  if (!find(address, range) || !range->on_device()) return false;
  uint64_t held = range->bytes - (address - range->base);
  if (bytes <= held) return true;
  if (range->kind != MemoryKind::mapped) return false;
  const std::shared_lock guard(mutex_);
  for (auto next = ranges_.upper_bound(address); next != ranges_.end(); ++next) {
    const bool joins = next->first == address + held && next->second.kind == MemoryKind::mapped;
    if (!joins) return false;
    held += next->second.bytes;
    if (bytes <= held) return true;
  }
  return false;
}

bool Addresses::is_pinned(const void* address, uint64_t bytes) const {
  Range range;
  const auto at = reinterpret_cast<uint64_t>(address);
  return find(at, &range) && !range.on_device() && bytes <= range.bytes - (at - range.base);
}

bool Addresses::is_shared(const client::Server* server, uint64_t address, uint64_t bytes) const {
  Range range;
  return find(address, &range) && range.shared && range.context->server == server &&
         bytes <= range.bytes - (address - range.base);
}

bool Addresses::end_sharing(const Context* context) {
  const std::unique_lock guard(mutex_);
  bool any = false;
  for (auto& [base, range] : ranges_) {
    if (range.context == context) any |= std::exchange(range.shared, false);
  }
  return any;
}

bool Addresses::overlaps(uint64_t address, uint64_t bytes) const {
  const std::shared_lock guard(mutex_);
  const auto after = ranges_.lower_bound(address + bytes);
  if (after == ranges_.begin()) return false;
  const Range& last = std::prev(after)->second;
  return last.base + last.bytes > address;
}

void Addresses::forget(const Context* context) {
  std::vector<Range> gone;
  {
    const std::unique_lock guard(mutex_);
    std::erase_if(ranges_, [&](const auto& entry) {
      const bool inside = entry.second.context == context && entry.second.on_device();
      if (inside && entry.second.pool != nullptr) gone.push_back(entry.second);
      return inside;
    });
  }
  for (const Range& range : gone) give_back(range.pool, range.bytes);
}

Addresses& addresses() {
  static auto* const instance = new Addresses;
  return *instance;
}

}  // namespace outboard::shim
