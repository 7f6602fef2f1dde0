// A device's heap: granules of 2 MiB, small allocations within them.
// SPDX-License-Identifier: Apache-2.0
#include "heap.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace softgpu {
namespace {

uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) & ~(unit - 1); }

}  // namespace

Heap::Heap(std::function<bool(uint64_t, uint64_t)> commit,
           std::function<void(uint64_t, uint64_t)> decommit)
    : commit_(std::move(commit)), decommit_(std::move(decommit)) {}

bool Heap::reserve(uint64_t bytes) {
  bytes = round_up(bytes, kGranule) + kGranule;
  // Pages cost memory only when they are touched; what a device may use in all is counted by
  // `commit_`, not by the system. Of a file, so that other processes can map it.
  int file = memfd_create("softgpu-heap", MFD_CLOEXEC);
  if (file >= 0 && ftruncate(file, static_cast<off_t>(bytes)) != 0) {
    close(file);
    file = -1;
  }
  const int kind = file >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, kind | MAP_NORESERVE, file, 0);
  if (base == MAP_FAILED) {
    if (file >= 0) close(file);
    return false;
  }
  file_ = file;
  start_ = reinterpret_cast<uint64_t>(base);
  madvise(base, bytes, MADV_DONTDUMP);
  uint64_t first = round_up(reinterpret_cast<uint64_t>(base), kGranule);
  uint64_t end = (reinterpret_cast<uint64_t>(base) + bytes) & ~(kGranule - 1);
  granules_.release(first, end - first);
  return true;
}

uint64_t Heap::allocate(uint64_t bytes, uint64_t alignment) {
  alignment = std::max(alignment, kAlignment);
  if (bytes == 0 || bytes > (1ull << 46)) return 0;
  std::lock_guard lock(mutex_);
  if (bytes >= kGranule / 2 || alignment > kGranule / 2) {
    bytes = round_up(bytes, kGranule);
    auto base = granules_.allocate(bytes, std::max(alignment, kGranule));
    if (!base) return 0;
    if (!commit_(*base, bytes)) {
      granules_.release(*base, bytes);
      return 0;
    }
    sizes_[*base] = bytes;
    return *base;
  }
  bytes = round_up(bytes, kAlignment);
  auto base = small_.allocate(bytes, alignment);
  if (!base) {
    auto granule = granules_.allocate(kGranule, kGranule);
    if (!granule) return 0;
    if (!commit_(*granule, kGranule)) {
      granules_.release(*granule, kGranule);
      return 0;
    }
    small_.release(*granule, kGranule);
    base = small_.allocate(bytes, alignment);
  }
  sizes_[*base] = bytes;
  return *base;
}

void Heap::release(uint64_t base) {
  std::lock_guard lock(mutex_);
  auto found = sizes_.find(base);
  if (found == sizes_.end()) return;
  uint64_t bytes = found->second;
  sizes_.erase(found);
  if (bytes >= kGranule) {
    release_granules(base, bytes);
    return;
  }
  auto [from, length] = small_.release(base, bytes);
  // Granules that nothing uses any more go back. Those that lie wholly within the free range:
  uint64_t first = round_up(from, kGranule);
  uint64_t end = (from + length) & ~(kGranule - 1);
  if (end > first) {
    small_.take(first, end - first);
    release_granules(first, end - first);
  }
}

void Heap::release_granules(uint64_t base, uint64_t bytes) {
  decommit_(base, bytes);
  granules_.release(base, bytes);
}

}  // namespace softgpu
