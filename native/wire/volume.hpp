// The ends of copies in up to three dimensions, and what textures are made of, as they travel.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <span>

namespace outboard::wire {

/// One end of a copy: an array with a place in it, or device memory with its first byte.
struct VolumeEnd {
  uint64_t array = 0;     ///< id; 0: device memory
  uint64_t address = 0;   ///< of device memory: the first byte that is copied
  uint64_t pitch = 0;     ///< of device memory: bytes from row to row
  uint64_t rows = 0;      ///< of device memory: rows from slice to slice
  uint64_t x_bytes = 0;   ///< in an array
  uint64_t y = 0, z = 0;  ///< in an array
};

/// What a texture reads.
struct Resource {
  uint32_t type = 0;    ///< CUresourcetype
  uint32_t format = 0;  ///< CUarray_format; this and the rest of device memory only
  uint64_t id = 0;      ///< of an array or a mipmapped array
  uint64_t address = 0;
  uint64_t channels = 0;
  uint64_t width = 0;  ///< in elements; of linear memory in bytes
  uint64_t height = 0;
  uint64_t pitch = 0;
};

/// What TextureReferenceQuery asks for.
enum class ReferenceQuery : uint32_t { address, array, mipmapped_array, surface_array, format };

/// Reads structures that lie one after another; false where the bytes are not exactly these.
template <typename... T>
bool read_packed(std::span<const std::byte> bytes, T*... out) {
  if (bytes.size() != (sizeof(T) + ...)) return false;
  size_t at = 0;
  ((std::memcpy(out, bytes.data() + at, sizeof(T)), at += sizeof(T)), ...);
  return true;
}

}  // namespace outboard::wire
