// What lies at which address: every allocation of every device, and pinned host memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>

#include "device.hpp"

namespace softgpu {

class MemoryPool;
struct PhysicalMemory;

enum class MemoryKind {
  device,      ///< cuMemAlloc
  pool,        ///< stream-ordered
  module,      ///< a module's globals
  array,       ///< an array's, which programs know by no address
  mapped,      ///< cuMemMap
  pinned,      ///< cuMemHostAlloc
  managed,     ///< cuMemAllocManaged
  registered,  ///< cuMemHostRegister
};

struct Allocation {
  uint64_t base = 0;
  uint64_t size = 0;
  MemoryKind kind = MemoryKind::device;
  Device* device = nullptr;  ///< where it lies; null for host memory
  CUcontext context = nullptr;
  uint64_t context_id = 0;
  unsigned flags = 0;  ///< of cuMemHostAlloc or cuMemHostRegister
  uint64_t buffer_id = 0;
  std::shared_ptr<PhysicalMemory> physical;  ///< of a mapping
  uint64_t physical_offset = 0;
  std::shared_ptr<MemoryPool> pool;
  bool sync_memops = false;
  bool of_module = false;
  bool imported = false;  ///< another process's, `physical_offset` behind the mapping's begin

  /// The program's processor may use it.
  bool host() const { return kind >= MemoryKind::pinned; }
};

class MemoryMap {
 public:
  static MemoryMap& get();

  /// Returns the allocation's id, which no other ever has; 0 where the range overlaps another.
  uint64_t insert(Allocation allocation);
  /// The allocation that the address lies in.
  std::optional<Allocation> find(uint64_t address) const;
  /// Removes the allocation that begins at `base`, if it is of this kind.
  std::optional<Allocation> erase(uint64_t base, MemoryKind kind);
  /// Removes the allocation of that id, if it still begins at `base`: by then the address may be
  /// another's.
  std::optional<Allocation> erase_id(uint64_t base, uint64_t buffer_id);
  bool set_sync_memops(uint64_t address, bool value);
  /// Every allocation that overlaps [base, base + size).
  std::vector<Allocation> overlapping(uint64_t base, uint64_t size) const;

  /// Frees what the context allocated (not VMM mappings, which belong to the process).
  void release_context(const Context& context);
  /// Gives the memory back to where it came from.
  static void release(const Allocation& allocation);

 private:
  mutable std::shared_mutex mutex_;
  std::map<uint64_t, Allocation> allocations_;
  uint64_t next_buffer_id_ = 1;
};

/// Of imported memory: how much is mapped for it.
uint64_t mapped_bytes(const Allocation& imported);

/// Memory that the program's processor and all devices may use, not yet in the map; its base is 0
/// where there is none.
Allocation host_memory(size_t bytes, MemoryKind kind);
/// The same for a function that returns it.
CUresult allocate_host(Context& context, void** out, size_t bytes, unsigned flags, MemoryKind kind);
/// Host memory that all devices may reach.
void publish_host(Range range);
void withdraw_host(Range range);

}  // namespace softgpu
