// Memory pools, from which stream-ordered allocations come.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "device.hpp"
#include "handles.hpp"
#include "ipc.hpp"

namespace softgpu {

/// A limit and counters over the device's heap: nothing is cached, so that what a pool has reserved
/// is what it has in use.
class MemoryPool : public std::enable_shared_from_this<MemoryPool> {
 public:
  MemoryPool(Device& owner, uint64_t max_bytes) : device(owner), max_bytes_(max_bytes) {}

  /// Returns 0 when the device or the pool's limit is exhausted.
  uint64_t allocate(uint64_t bytes);
  void release(uint64_t base, uint64_t bytes);
  CUresult get_attribute(CUmemPool_attribute attribute, void* value) const;
  CUresult set_attribute(CUmemPool_attribute attribute, const void* value);

  Device& device;
  CUmemoryPool handle = nullptr;
  bool is_default = false;
  bool shareable = false;
  std::optional<SharedHandle> origin;  ///< of a pool of another process: nothing comes from it

 private:
  const uint64_t max_bytes_;
  mutable std::mutex mutex_;
  uint64_t used_ = 0;
  uint64_t used_high_ = 0;
  uint64_t release_threshold_ = 0;
  int reuse_[4] = {0, 1, 1, 1};  // by CU_MEMPOOL_ATTR_REUSE_*
};

HandleTable<MemoryPool, CUmemoryPool, 6>& memory_pools();
std::shared_ptr<MemoryPool> default_pool(Device& device);
std::shared_ptr<MemoryPool> current_pool(Device& device);

}  // namespace softgpu
