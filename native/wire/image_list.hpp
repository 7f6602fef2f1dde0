// Several fat binaries as one image: what a program built by separate compilation loads at once.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "wire/codec.hpp"

namespace outboard::wire {

/// An image on the wire begins so where it is a list: magic, u64 count, count × u64 length, then
/// the contents, each padded to 8. The first is the container that was linked, the rest are still
/// to be.
inline constexpr char image_list_magic[8] = {'O', 'B', 'F', 'A', 'T', 'S', '1', 0};

inline bool is_image_list(std::span<const std::byte> image) {
  return image.size() >= sizeof image_list_magic &&
         std::memcmp(image.data(), image_list_magic, sizeof image_list_magic) == 0;
}

inline std::vector<std::byte> write_image_list(std::span<const std::vector<std::byte>> parts) {
  size_t bytes = sizeof image_list_magic + 8 + 8 * parts.size();
  for (const auto& part : parts) bytes += padded(part.size());
  std::vector<std::byte> image(bytes);
  Writer writer(image.data());
  const uint64_t count = parts.size();
  writer.raw(image_list_magic, sizeof image_list_magic);
  writer.raw(&count, sizeof count);
  for (const auto& part : parts) {
    const uint64_t length = part.size();
    writer.raw(&length, sizeof length);
  }
  for (const auto& part : parts) {
    writer.raw(part.data(), part.size());
    writer.zeros(padded(part.size()) - part.size());
  }
  return image;
}

/// The parts, which point into `image`; empty where it is malformed.
inline std::vector<std::span<const std::byte>> read_image_list(std::span<const std::byte> image) {
  constexpr uint64_t most_parts = 1u << 16;
  Reader reader(image);
  char magic[sizeof image_list_magic];
  uint64_t count = 0;
  if (!reader.raw(magic, sizeof magic) || !reader.raw(&count, sizeof count) || count == 0 ||
      count > most_parts || count * 8 > reader.left()) {
    return {};
  }
  std::vector<uint64_t> lengths(count);
  reader.raw(lengths.data(), 8 * count);
  std::vector<std::span<const std::byte>> parts;
  for (const uint64_t length : lengths) {
    const std::byte* at = nullptr;
    if (length > reader.left() || !reader.view(padded(length), &at)) return {};
    parts.emplace_back(at, length);
  }
  return reader.left() == 0 ? parts : std::vector<std::span<const std::byte>>{};
}

}  // namespace outboard::wire
