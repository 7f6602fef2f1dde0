// The heap that kernels allocate from with malloc.
// SPDX-License-Identifier: Apache-2.0
#include "device_heap.hpp"

#include <sys/mman.h>

namespace softgpu::simt {

DeviceHeap::~DeviceHeap() {
  if (!base_) return;
  space_.remove({base_, mapped_});
  munmap(reinterpret_cast<void*>(base_), mapped_);
}

bool DeviceHeap::map() {
  if (base_) return true;
  uint64_t bytes = (limit_ + 4095) / 4096 * 4096;
  if (bytes == 0) return false;
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return false;
  base_ = reinterpret_cast<uint64_t>(p);
  mapped_ = bytes;
  free_[base_] = bytes;
  // A running kernel looks addresses up in the newest table, so it sees this at once.
  space_.add({base_, bytes});
  return true;
}

uint64_t DeviceHeap::allocate(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  if (bytes == 0 || bytes > limit_ || !map()) return 0;
  bytes = (bytes + 15) / 16 * 16;
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    if (it->second < bytes) continue;
    auto [address, size] = *it;
    free_.erase(it);
    if (size > bytes) free_[address + bytes] = size - bytes;
    used_[address] = bytes;
    return address;
  }
  return 0;
}

bool DeviceHeap::release(uint64_t address) {
  if (address == 0) return true;
  std::lock_guard lock(mutex_);
  auto it = used_.find(address);
  if (it == used_.end()) return false;
  uint64_t bytes = it->second;
  used_.erase(it);
  auto next = free_.lower_bound(address);
  if (next != free_.end() && address + bytes == next->first) {
    bytes += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    auto previous = std::prev(next);
    if (previous->first + previous->second == address) {
      previous->second += bytes;
      return true;
    }
  }
  free_[address] = bytes;
  return true;
}

void DeviceHeap::resize(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  if (!used_.empty()) return;
  if (base_ && bytes != limit_) {
    space_.remove({base_, mapped_});
    munmap(reinterpret_cast<void*>(base_), mapped_);
    base_ = 0;
    free_.clear();
  }
  limit_ = bytes;
}

}  // namespace softgpu::simt
