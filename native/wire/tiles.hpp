// Arrays whose memory the program maps tile by tile: how they are divided, and what maps tiles, as
// it travels.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace outboard::wire {

inline constexpr uint64_t tile_bytes = 64 << 10;
/// In one ArrayMap.
inline constexpr size_t most_tile_mappings = 512;

/// One operation of cuMemMapArrayAsync.
struct TileMapping {
  uint64_t array = 0;            ///< id; 0: `mipmap` says which
  uint64_t mipmap = 0;           ///< id
  uint64_t memory = 0;           ///< id; 0: the tiles lose what they have
  uint64_t offset = 0;           ///< in the memory
  uint64_t tail_offset = 0;      ///< of a mip tail, in bytes
  uint64_t tail_size = 0;        ///< 0: of a level
  std::array<uint32_t, 3> at{};  ///< in a level, in elements
  std::array<uint32_t, 3> extent{};
  uint32_t level = 0;
  uint32_t layer = 0;
};
static_assert(sizeof(TileMapping) == 80);

/// The tiles of an array, numbered; none where it has its memory. What is mapped as a whole counts
/// as one.
class TileGrid {
 public:
  TileGrid() = default;
  /// `properties`: as the driver has them for sparse arrays; where all is mapped at once, the size
  /// of the tail is that of the array.
  TileGrid(const CUDA_ARRAY3D_DESCRIPTOR& descriptor, unsigned levels,
           const CUDA_ARRAY_SPARSE_PROPERTIES& properties);

  uint64_t count() const { return count_; }
  bool deferred() const { return deferred_; }
  /// The memory that so many tiles take.
  uint64_t bytes(size_t tiles) const { return deferred_ ? tail_size_ : tiles * tile_bytes; }
  /// The tiles that the mapping is about, in the order in which they take memory; empty where it is
  /// about none, or not about whole ones.
  std::vector<uint64_t> tiles_of(const TileMapping& mapping) const;

 private:
  using Extent = std::array<uint64_t, 3>;
  Extent extent_of(unsigned level) const;
  Extent tiles_in(const Extent& extent) const;
  std::vector<uint64_t> tiles_of_level(const TileMapping& mapping) const;
  std::vector<uint64_t> tiles_of_tail(const TileMapping& mapping) const;

  Extent extent_{}, tile_{};
  uint64_t layers_ = 1;
  std::vector<uint64_t> first_;  ///< tile of each level that is not in the tail
  uint64_t tail_first_ = 0, tail_size_ = 0, tails_ = 1;
  uint64_t count_ = 0;
  bool deferred_ = false;
};

inline TileGrid::Extent TileGrid::extent_of(unsigned level) const {
  Extent extent = extent_;
  for (uint64_t& size : extent) size = std::max<uint64_t>(size >> level, 1);
  return extent;
}

inline TileGrid::Extent TileGrid::tiles_in(const Extent& extent) const {
  Extent tiles{};
  for (size_t k = 0; k < 3; ++k) tiles[k] = (extent[k] + tile_[k] - 1) / tile_[k];
  return tiles;
}

inline TileGrid::TileGrid(const CUDA_ARRAY3D_DESCRIPTOR& descriptor, unsigned levels,
                          const CUDA_ARRAY_SPARSE_PROPERTIES& properties) {
  deferred_ = (descriptor.Flags & CUDA_ARRAY3D_DEFERRED_MAPPING) != 0;
  if (deferred_) {
    count_ = 1;
    tail_size_ = properties.miptailSize;
  }
  if (deferred_ || (descriptor.Flags & CUDA_ARRAY3D_SPARSE) == 0) return;
  const bool layered = (descriptor.Flags & CUDA_ARRAY3D_LAYERED) != 0;
  const auto& tile = properties.tileExtent;
  extent_ = {descriptor.Width, descriptor.Height, layered ? 1 : descriptor.Depth};
  tile_ = {std::max(tile.width, 1U), std::max(tile.height, 1U), std::max(tile.depth, 1U)};
  if (layered) layers_ = descriptor.Depth;
  const bool single = (properties.flags & CU_ARRAY_SPARSE_PROPERTIES_SINGLE_MIPTAIL) != 0;
  tails_ = single ? 1 : layers_;
  tail_size_ = properties.miptailSize;
  const unsigned whole = tail_size_ != 0 ? std::min(properties.miptailFirstLevel, levels) : levels;
  for (unsigned level = 0; level < whole; ++level) {
    const Extent tiles = tiles_in(extent_of(level));
    first_.push_back(count_);
    count_ += tiles[0] * tiles[1] * tiles[2] * layers_;
  }
  tail_first_ = count_;
  count_ += tail_size_ / tile_bytes * tails_;
}

inline std::vector<uint64_t> TileGrid::tiles_of(const TileMapping& mapping) const {
  if (deferred_) return {0};
  return mapping.tail_size == 0 ? tiles_of_level(mapping) : tiles_of_tail(mapping);
}

inline std::vector<uint64_t> TileGrid::tiles_of_level(const TileMapping& mapping) const {
  if (mapping.level >= first_.size() || mapping.layer >= layers_) return {};
  const Extent extent = extent_of(mapping.level);
  const Extent all = tiles_in(extent);
  Extent count{};
  for (size_t k = 0; k < 3; ++k) {
    const uint64_t end = uint64_t{mapping.at[k]} + mapping.extent[k];
    // The last tile may reach over the edge, and is named with what does or without.
    const bool inside = mapping.extent[k] % tile_[k] == 0 && end <= all[k] * tile_[k];
    if (mapping.extent[k] == 0 || mapping.at[k] % tile_[k] != 0 || !(inside || end == extent[k])) {
      return {};
    }
    count[k] = (mapping.extent[k] + tile_[k] - 1) / tile_[k];
  }
  std::vector<uint64_t> found(count[0] * count[1] * count[2]);
  for (uint64_t i = 0; i < found.size(); ++i) {
    const uint64_t x = mapping.at[0] / tile_[0] + i % count[0];
    const uint64_t y = mapping.at[1] / tile_[1] + i / count[0] % count[1];
    const uint64_t z = mapping.at[2] / tile_[2] + i / count[0] / count[1];
    found[i] = first_[mapping.level] + ((mapping.layer * all[2] + z) * all[1] + y) * all[0] + x;
  }
  return found;
}

inline std::vector<uint64_t> TileGrid::tiles_of_tail(const TileMapping& mapping) const {
  if (mapping.layer >= tails_ || mapping.tail_offset % tile_bytes != 0 ||
      mapping.tail_size % tile_bytes != 0 || mapping.tail_size > tail_size_ ||
      mapping.tail_offset > tail_size_ - mapping.tail_size) {
    return {};
  }
  const uint64_t first =
      tail_first_ + (mapping.layer * tail_size_ + mapping.tail_offset) / tile_bytes;
  std::vector<uint64_t> found(mapping.tail_size / tile_bytes);
  for (size_t i = 0; i < found.size(); ++i) found[i] = first + i;
  return found;
}

}  // namespace outboard::wire
