// Virtual memory that the program manages: its reservations, its physical memory, what is mapped
// where. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <map>
#include <memory>

#include "worker/blocks.hpp"
#include "worker/driver.hpp"
#include "worker/memory.hpp"
#include "worker/objects.hpp"
#include "worker/share.hpp"

namespace outboard::worker {

/// What a cuMemCreate made. Counted against the share until it is released and no tile of an array
/// has it.
struct PhysicalMemory {
  explicit PhysicalMemory(const Driver& maker) : driver(maker) {}
  ~PhysicalMemory() {
    if (handle != 0) driver.cuMemRelease(handle);
  }
  PhysicalMemory(const PhysicalMemory&) = delete;
  PhysicalMemory& operator=(const PhysicalMemory&) = delete;

  const Driver& driver;
  CUmemGenericAllocationHandle handle = 0;
  uint64_t bytes = 0;
  unsigned device = 0;
  unsigned mappings = 0;
  bool imported = false;
  std::shared_ptr<Claim> claim;
  wire::Token token{};  ///< by which other workers may ask for it; zeros: none yet
};

class VirtualMemory {
 public:
  VirtualMemory(const Driver& driver, Share& share, Memory& memory)
      : driver_(driver), share_(share), memory_(memory) {}
  ~VirtualMemory();
  VirtualMemory(const VirtualMemory&) = delete;
  VirtualMemory& operator=(const VirtualMemory&) = delete;

  /// At exactly range.base, or where the driver likes if that is 0.
  CUresult reserve(Range range, uint64_t alignment, uint64_t* base);
  CUresult free(Range range);
  /// `id` may be created: it is free in the table.
  CUresult create(uint64_t id, unsigned device, const CUmemAllocationProp& properties,
                  uint64_t bytes);
  Insert may_create(uint64_t id) const { return physical_.may_insert(id); }
  PhysicalMemory* find(uint64_t id) const { return physical_.find(id); }
  std::shared_ptr<PhysicalMemory> share_memory(uint64_t id) const { return physical_.share(id); }
  /// For another process; empty where the driver refuses.
  UniqueFd export_memory(const PhysicalMemory& memory) const;
  CUresult import_memory(uint64_t id, UniqueFd fd, std::shared_ptr<Claim> claim);
  CUresult release(uint64_t id);
  CUresult map(uint64_t id, Range range, uint64_t offset);
  CUresult unmap(Range range);
  CUresult set_access(Range range, CUdevice device, CUmemAccess_flags access);

 private:
  using Mappings = std::map<uint64_t, std::pair<uint64_t, std::shared_ptr<PhysicalMemory>>>;

  /// The first of the mappings that fill the range exactly; end() where they do not.
  Mappings::iterator first_of(Range range);
  void unmap_at(Mappings::iterator mapping);
  bool overlaps_mapping(Range range) const;

  const Driver& driver_;
  Share& share_;
  Memory& memory_;
  std::map<uint64_t, uint64_t> reservations_;  ///< base, bytes
  Mappings mappings_;                          ///< base, bytes and what is mapped
  ObjectTable<PhysicalMemory> physical_;
};

}  // namespace outboard::worker
