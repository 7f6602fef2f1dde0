// Which addresses are the program's device and pinned memory, and what is known of each range.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <map>
#include <shared_mutex>

namespace outboard::client {
class Server;
}

namespace outboard::shim {

struct Context;
struct Device;
struct Pool;

enum class MemoryKind : uint8_t {
  device,      ///< cuMemAlloc
  pool,        ///< stream-ordered
  graph,       ///< allocated by a graph
  global,      ///< a module's variable
  imported,    ///< another process's, opened by an IPC handle
  mapped,      ///< physical memory that the program mapped; of no context
  pinned,      ///< host memory that we allocated
  managed,     ///< the same, as memory that program and devices take turns with
  registered,  ///< the program's own host memory
  alias,       ///< what devices know registered memory by; nothing is mapped there
};

struct Range {
  uint64_t base = 0;
  uint64_t bytes = 0;
  uint64_t buffer_id = 0;
  Context* context = nullptr;
  Device* device = nullptr;
  Pool* pool = nullptr;  ///< of stream-ordered memory
  unsigned flags = 0;    ///< of host memory; of a device's, what it may be exported as
  MemoryKind kind = MemoryKind::device;
  bool decompressed = false;  ///< of a mapping: its memory was made for it
  bool variable = false;      ///< of managed memory: a module's
  /// Of registered memory its alias, or 0; of an alias the memory; of host memory of ours itself
  /// once it is sure that devices use it.
  uint64_t partner = 0;

  /// Of host memory of ours: it is the memory of the context's server, too (shared_pages.hpp).
  bool shared = false;

  bool on_device() const { return kind <= MemoryKind::mapped; }
  /// Host memory of ours, which devices know by the program's address.
  bool has_one_address() const { return kind == MemoryKind::pinned || kind == MemoryKind::managed; }
};

/// Ranges never overlap. Readers share.
class Addresses {
 public:
  bool add(Range range);
  /// Removes the range that begins exactly at `base` and is of one of the two kinds.
  bool remove(uint64_t base, MemoryKind kind, MemoryKind or_kind, Range* removed);
  /// Notes how devices know the host memory that begins at `base`.
  void set_partner(uint64_t base, uint64_t alias);
  /// The range that holds `address`.
  bool find(uint64_t address, Range* range) const;
  /// True if [address, address + bytes) lies within one range of device memory, or within mappings
  /// side by side; `range` is the first.
  bool is_device(uint64_t address, uint64_t bytes, Range* range) const;
  /// True if [address, address + bytes) lies within one range of pinned or registered memory, as
  /// the program or as devices know it.
  bool is_pinned(const void* address, uint64_t bytes) const;
  /// True if [address, address + bytes) lies within memory that is shared with this server.
  bool is_shared(const client::Server* server, uint64_t address, uint64_t bytes) const;
  /// What was shared in this context is not any more; false: nothing was.
  bool end_sharing(const Context* context);
  /// Whether any pinned or registered byte lies in [address, address + bytes).
  bool overlaps(uint64_t address, uint64_t bytes) const;
  /// The context's device memory is gone.
  void forget(const Context* context);

 private:
  mutable std::shared_mutex mutex_;
  std::map<uint64_t, Range> ranges_;
  uint64_t last_id_ = 0;
};

Addresses& addresses();

}  // namespace outboard::shim
