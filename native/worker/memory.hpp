// Device memory: chunks of the driver mapped into the client's windows, and the table of all
// addresses. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/fds.hpp"
#include "wire/interprocess.hpp"
#include "worker/blocks.hpp"
#include "worker/driver.hpp"
#include "worker/share.hpp"

namespace outboard::worker {

struct Context;
struct Module;

/// Says how kernels on a device, as the driver names it, reach what is mapped there.
CUresult set_access(const Driver& driver, const Range& range, CUdevice device,
                    CUmemAccess_flags access);

/// A range of device addresses that the client may name.
struct Allocation {
  Range range;               ///< as the client asked for it
  uint64_t block_bytes = 0;  ///< as it was taken
  unsigned device = 0;
  const Context* context = nullptr;  ///< null: a mapping of the program's own, of no context
  const Module* module = nullptr;    ///< a module's global: placed by the driver
  bool managed = false;              ///< such a one that the processor may use
  bool host = false;                 ///< host memory, that devices reach
  bool freed = false;                ///< its free came; it goes when its context's work is done
  bool imported = false;             ///< of another worker's chunk, which is mapped for it alone
  wire::Token token{};               ///< by which other workers may ask for it; zeros: none yet
};

class Memory {
 public:
  static constexpr uint64_t granule_bytes = 2 << 20;
  static constexpr uint64_t small_bytes = 1 << 20;  ///< up to here an allocation shares a granule
  static constexpr uint64_t small_alignment_bytes = 512;

  Memory(const Driver& driver, Share& share, std::vector<CUdevice> devices);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  /// Reserves a device's window at exactly this place; false where the driver cannot.
  bool reserve_window(unsigned device, Range window);
  void free_windows();

  /// Kernels on `viewer` reach the device's memory, present and to come, until as many calls of
  /// close() came as of open(). CUDA's own switch does not count for memory that is mapped.
  CUresult open(unsigned device, unsigned viewer);
  CUresult close(unsigned device, unsigned viewer);

  CUresult allocate(const Context& context, unsigned device, uint64_t bytes, CUdeviceptr* address);
  /// The allocation that begins here and is not freed.
  Allocation* begins_at(CUdeviceptr address);
  void release(CUdeviceptr address);
  /// The chunk that an allocation lies in, for another process, and where it lies there.
  struct Exported {
    UniqueFd chunk;
    uint64_t chunk_bytes = 0;
    uint64_t offset = 0;
    std::shared_ptr<Claim> claim;
  };
  CUresult export_chunk(const Allocation& allocation, Exported* exported) const;
  /// Maps another worker's chunk, with an allocation of `bytes` at `offset`. It is of `device`, and
  /// kernels on the context's device reach it too.
  CUresult import_chunk(const Context& context, unsigned device, Exported exported, uint64_t bytes,
                        CUdeviceptr* address);
  /// Takes a module's global into the table.
  void add_global(const Module& module, Range range, bool managed);
  void remove_globals(const Module& module);
  /// Takes a mapping that the program made into the table; false where something lies there.
  bool add_mapping(unsigned device, Range range) { return add_outside(device, range, false); }
  /// The same of host memory that devices reach.
  bool add_host(unsigned device, Range range) { return add_outside(device, range, true); }
  void remove_mapping(CUdeviceptr address) { table_.erase(address); }
  /// Frees everything of a context.
  void release_all(const Context& context);

  /// Whether [address, address + bytes) lies in one allocation, or in mappings without a gap.
  bool contains(CUdeviceptr address, uint64_t bytes) const {
    return find(address, bytes) != nullptr;
  }
  const Allocation* find(CUdeviceptr address, uint64_t bytes) const;

 private:
  struct Chunk {
    CUmemGenericAllocationHandle handle = 0;
    uint64_t bytes = 0;
    std::shared_ptr<Claim> claim;
    std::optional<unsigned> importer;  ///< a device that reaches it besides its own
  };
  struct DeviceMemory {
    CUdevice device = 0;
    std::map<unsigned, unsigned> viewers;  ///< how often each was let in
    Range window;
    Blocks free_window{granule_bytes};
    Blocks small{small_alignment_bytes};
    std::map<uint64_t, Chunk> chunks;  ///< by address
  };

  bool add_outside(unsigned device, Range range, bool host);
  CUresult make_chunk(unsigned device, uint64_t bytes, uint64_t* address);
  CUresult map_chunk(unsigned device, Chunk chunk, uint64_t* address);
  CUresult create(CUdevice device, uint64_t bytes, CUmemGenericAllocationHandle* handle) const;
  void unmap_chunk(unsigned device, uint64_t address);

  const Driver& driver_;
  Share& share_;
  std::vector<DeviceMemory> devices_;
  std::map<uint64_t, Allocation> table_;  ///< by first address
};

}  // namespace outboard::worker
