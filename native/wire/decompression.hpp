// The operations of a batch that decompresses device memory, as they travel.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace outboard::wire {

struct Decompression {
  uint64_t source = 0;
  uint64_t source_bytes = 0;
  uint64_t destination = 0;
  uint64_t destination_bytes = 0;  ///< that are expected; 0: not said
  uint64_t written = 0;            ///< where the device counts the bytes, in 32 bits
  uint64_t algorithm = 0;          ///< CUmemDecompressAlgorithm
};
static_assert(sizeof(Decompression) == 48);
/// In one MemoryDecompress.
inline constexpr size_t most_decompressions = 1024;

}  // namespace outboard::wire
