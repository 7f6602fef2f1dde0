// What lies at which address.
// SPDX-License-Identifier: Apache-2.0
#include "memory_map.hpp"

#include <sys/mman.h>

#include <iterator>

#include "activity.hpp"
#include "context.hpp"
#include "memory_pool.hpp"

namespace softgpu {

MemoryMap& MemoryMap::get() {
  static MemoryMap& map = *new MemoryMap;
  return map;
}

uint64_t MemoryMap::insert(Allocation allocation) {
  std::unique_lock lock(mutex_);
  auto next = allocations_.lower_bound(allocation.base);
  if (next != allocations_.end() && next->first < allocation.base + allocation.size) return 0;
  if (next != allocations_.begin()) {
    const Allocation& before = std::prev(next)->second;
    if (before.base + before.size > allocation.base) return 0;
  }
  uint64_t id = next_buffer_id_++;
  allocation.buffer_id = id;
  uint64_t base = allocation.base;
  allocations_.emplace_hint(next, base, std::move(allocation));
  return id;
}

std::optional<Allocation> MemoryMap::find(uint64_t address) const {
  std::shared_lock lock(mutex_);
  auto next = allocations_.upper_bound(address);
  if (next == allocations_.begin()) return std::nullopt;
  const Allocation& found = std::prev(next)->second;
  if (address - found.base >= found.size) return std::nullopt;
  return found;
}

std::optional<Allocation> MemoryMap::erase(uint64_t base, MemoryKind kind) {
  std::unique_lock lock(mutex_);
  auto found = allocations_.find(base);
  if (found == allocations_.end() || found->second.kind != kind) return std::nullopt;
  Allocation allocation = std::move(found->second);
  allocations_.erase(found);
  return allocation;
}

std::optional<Allocation> MemoryMap::erase_id(uint64_t base, uint64_t buffer_id) {
  std::unique_lock lock(mutex_);
  auto found = allocations_.find(base);
  if (found == allocations_.end() || found->second.buffer_id != buffer_id) return std::nullopt;
  Allocation allocation = std::move(found->second);
  allocations_.erase(found);
  return allocation;
}

bool MemoryMap::set_sync_memops(uint64_t address, bool value) {
  std::unique_lock lock(mutex_);
  auto next = allocations_.upper_bound(address);
  if (next == allocations_.begin()) return false;
  Allocation& found = std::prev(next)->second;
  if (address - found.base >= found.size) return false;
  found.sync_memops = value;
  return true;
}

std::vector<Allocation> MemoryMap::overlapping(uint64_t base, uint64_t size) const {
  std::shared_lock lock(mutex_);
  std::vector<Allocation> found;
  auto it = allocations_.upper_bound(base);
  if (it != allocations_.begin()) --it;
  for (; it != allocations_.end() && it->first < base + size; ++it) {
    if (it->second.base + it->second.size > base) found.push_back(it->second);
  }
  return found;
}

uint64_t mapped_bytes(const Allocation& imported) {
  constexpr uint64_t kPage = 4096;
  return (imported.physical_offset + imported.size + kPage - 1) & ~(kPage - 1);
}

void MemoryMap::release(const Allocation& allocation) {
  if (allocation.imported) {
    allocation.device->withdraw({allocation.base, allocation.size});
    Activity::discard(allocation.base - allocation.physical_offset, mapped_bytes(allocation));
    return;
  }
  switch (allocation.kind) {
    case MemoryKind::device:
    case MemoryKind::module:
    case MemoryKind::array:
      allocation.device->heap.release(allocation.base);
      break;
    case MemoryKind::pool:
      allocation.pool->release(allocation.base, allocation.size);
      break;
    case MemoryKind::pinned:
    case MemoryKind::managed:
      withdraw_host({allocation.base, allocation.size});
      munmap(reinterpret_cast<void*>(allocation.base), allocation.size);
      break;
    case MemoryKind::registered:
      withdraw_host({allocation.base, allocation.size});
      break;
    case MemoryKind::mapped:
      break;  // cuMemUnmap's business
  }
}

void MemoryMap::release_context(const Context& context) {
  std::vector<Allocation> gone;
  {
    std::unique_lock lock(mutex_);
    for (auto it = allocations_.begin(); it != allocations_.end();) {
      const Allocation& a = it->second;
      if (a.context_id == context.id && a.kind != MemoryKind::mapped) {
        gone.push_back(std::move(it->second));
        it = allocations_.erase(it);
      } else {
        ++it;
      }
    }
  }
  for (const Allocation& allocation : gone) release(allocation);
}

void publish_host(Range range) {
  for (auto& device : Driver::get().devices) device->space.add(range);
}

void withdraw_host(Range range) {
  for (auto& device : Driver::get().devices) device->space.remove(range);
}

}  // namespace softgpu
