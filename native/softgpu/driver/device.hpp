// One software GPU: its identity, memory, engine and primary context.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../engine/engine.hpp"
#include "api.hpp"
#include "heap.hpp"
#include "identity.hpp"

namespace softgpu {

class Context;
class MemoryPool;

inline constexpr uint64_t kContextBytes = 4ull << 20;  ///< what a context counts as

class Device {
 public:
  explicit Device(int ordinal);

  /// Reserves the heap; false where the system has no address space for it.
  bool start();

  /// Reserves `bytes` of the device's memory in its books; false when there is too little.
  bool charge(uint64_t bytes);
  void refund(uint64_t bytes);
  uint64_t total_bytes() const { return total_; }
  uint64_t free_bytes() const { return total_ - used_.load(); }

  /// Makes a range of this device's memory visible to its kernels and to those of devices that
  /// have peer access to it.
  void publish(Range range);
  void withdraw(Range range);
  /// `viewer` sees this device's memory from now on (or no longer).
  void add_viewer(Device* viewer);
  void remove_viewer(Device* viewer);
  bool has_viewer(Device* viewer);

  /// Runs a kernel; one at a time on a device.
  Outcome run(const Kernel& kernel, Launch launch, const BoundReferences& references);

  CUresult attribute(CUdevice_attribute attribute, int* value) const;

  const int ordinal;
  CUuuid uuid{};
  int pci_bus = 0;
  AddressSpace space;
  Heap heap;
  std::unique_ptr<Engine> engine;

  std::mutex primary_mutex;
  std::shared_ptr<Context> primary;  ///< null while it is not active
  CUcontext primary_handle = nullptr;
  unsigned primary_retained = 0;
  unsigned primary_flags = 0;

  std::mutex pool_mutex;
  std::shared_ptr<MemoryPool> default_pool;
  std::shared_ptr<MemoryPool> current_pool;

 private:
  uint64_t total_ = 0;
  std::atomic<uint64_t> used_{0};
  std::mutex run_mutex_;
  std::mutex ranges_mutex_;
  std::vector<Range> published_;
  std::vector<Device*> viewers_;
};

/// All devices; made by cuInit and never destroyed, since threads may outlive main().
struct Driver {
  std::vector<std::unique_ptr<Device>> devices;

  /// cuInit: idempotent. `initialised()` is false before it and in a forked child.
  static CUresult start();
  static bool initialised();
  static bool forked();  ///< in the child of a process that had called cuInit
  static Driver& get();

  Device* device(CUdevice ordinal) const {
    return ordinal >= 0 && static_cast<size_t>(ordinal) < devices.size()
               ? devices[static_cast<size_t>(ordinal)].get()
               : nullptr;
  }
};

}  // namespace softgpu
