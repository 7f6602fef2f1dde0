// The program's host memory as devices of this server see it: a copy at the same address.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

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

  /// The context is current.
  CUresult map(const Context& context, Range range);
  CUresult unmap(CUdeviceptr address);
  /// False where that is no such memory or the changes are none.
  bool write(CUdeviceptr address, std::span<const std::byte> changes);
  /// What changed here from `offset` on; returns where to go on.
  CUresult read(CUdeviceptr address, uint64_t offset, uint64_t* next,
                std::vector<std::byte>* changes);
  /// The context ends, and what was registered in it.
  void release_all(const Context& context);

 private:
  /// Host memory is not counted against the share, so that it has a bound of its own.
  static constexpr uint64_t max_bytes = uint64_t{8} << 30;

  struct Buffer {
    Range range;
    const Context* context = nullptr;
    std::byte* pages = nullptr;  ///< of `page_bytes`, which hold the range
    size_t page_bytes = 0;
    std::byte* known = nullptr;  ///< what the client is known to hold; as long as the range
  };

  std::span<std::byte> content(const Buffer& buffer) const {
    return {reinterpret_cast<std::byte*>(buffer.range.base), buffer.range.bytes};
  }
  void drop(const Buffer& buffer);

  const Driver& driver_;
  Memory& memory_;
  std::map<uint64_t, Buffer> buffers_;  ///< by first address
  uint64_t bytes_ = 0;
};

}  // namespace outboard::worker
