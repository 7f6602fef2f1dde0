// The heap that kernels allocate from with malloc.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

#include "engine.hpp"

namespace softgpu::simt {

/// First fit with merging, under a lock. Its memory is mapped and added to the address space when a
/// kernel first allocates, so contexts that never do stay small.
class DeviceHeap {
 public:
  explicit DeviceHeap(AddressSpace& space, uint64_t bytes) : space_(space), limit_(bytes) {}
  ~DeviceHeap();
  DeviceHeap(const DeviceHeap&) = delete;
  DeviceHeap& operator=(const DeviceHeap&) = delete;

  /// 16-byte aligned; 0 when it does not fit.
  uint64_t allocate(uint64_t bytes);
  /// False when the address was not given by allocate; 0 is fine.
  bool release(uint64_t address);
  /// Takes effect as long as nothing was allocated.
  void resize(uint64_t bytes);

 private:
  bool map();

  AddressSpace& space_;
  std::mutex mutex_;
  uint64_t limit_;
  uint64_t base_ = 0;
  uint64_t mapped_ = 0;
  std::map<uint64_t, uint64_t> free_;  ///< address to bytes
  std::map<uint64_t, uint64_t> used_;
};

}  // namespace softgpu::simt
