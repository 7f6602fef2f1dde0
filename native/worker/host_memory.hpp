// The program's host memory as devices of this server see it, at the same address: its own pages
// where both are on one host, else a copy.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/fds.hpp"
#include "worker/driver.hpp"
#include "worker/memory.hpp"

namespace outboard::worker {

struct Context;

class HostMemory {
 public:
  HostMemory(const Driver& driver, Memory& memory) : driver_(driver), memory_(memory) {}
  ~HostMemory();
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  /// A copy, filled with zeros; where a module has managed memory there, that. The context is
  /// current.
  CUresult map(const Context& context, Range range);

  /// Takes the connection on which the client hands over its memory, and says there that it did.
  void connect(UniqueFd socket);
  /// Maps what was handed over for `range`, which is of whole pages, without telling the driver.
  /// False in `*allowed` where the client sent what it may not.
  CUresult map_shared(const Context& context, Range range, bool* allowed);
  /// Tells the driver of pages that map_shared() mapped, in the current context, on any thread.
  CUresult pin(Range range) const;
  /// How that went: only now they are memory like the rest, or gone.
  void note_pinned(CUdeviceptr address, CUresult result);
  /// The context that the memory which begins here is registered in; null: none does.
  const Context* home(CUdeviceptr address) const;

  CUresult unmap(CUdeviceptr address);
  /// False where that is no such memory or the changes are none.
  bool write(CUdeviceptr address, std::span<const std::byte> changes);
  /// What changed here from `offset` on; returns where to go on.
  CUresult read(CUdeviceptr address, uint64_t offset, uint64_t* next,
                std::vector<std::byte>* changes);
  /// The context ends, and what was registered in it.
  void release_all(const Context& context);
  /// Modules went, and the memory that they managed.
  void release_lost();

 private:
  /// Host memory is not counted against the share, so that it has a bound of its own.
  static constexpr uint64_t max_bytes = uint64_t{8} << 30;
  /// Descriptors that came and were not named yet: one for each thread of a client that allocates.
  static constexpr size_t most_descriptors = 256;

  struct Buffer {
    Range range;
    const Context* context = nullptr;
    std::byte* pages = nullptr;  ///< of `page_bytes`, which hold the range
    size_t page_bytes = 0;
    /// What the client is known to hold, as long as the range; null: the pages are the client's.
    std::byte* known = nullptr;
    bool pinned = false;
    bool module = false;  ///< a module's memory, which is not ours to end
  };

  std::span<std::byte> content(const Buffer& buffer) const {
    return {reinterpret_cast<std::byte*>(buffer.range.base), buffer.range.bytes};
  }
  void drop(const Buffer& buffer);
  bool take_descriptors();

  const Driver& driver_;
  Memory& memory_;
  std::map<uint64_t, Buffer> buffers_;  ///< by first address
  uint64_t bytes_ = 0;                  ///< of copies
  UniqueFd socket_;
  std::map<uint64_t, UniqueFd> descriptors_;  ///< by the address that each is for
};

}  // namespace outboard::worker
