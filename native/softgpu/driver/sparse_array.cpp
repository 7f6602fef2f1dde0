// How sparse arrays are divided into tiles.
// SPDX-License-Identifier: Apache-2.0
#include "sparse_array.hpp"

#include <algorithm>
#include <bit>

namespace softgpu {
namespace {

uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }
uint64_t quotient_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit; }

/// Elements of a tile, as square or cubic as powers of two can be: as on NVIDIA's devices.
void choose_tile(CUDA_ARRAY_SPARSE_PROPERTIES* properties, uint64_t element_bytes, bool volume) {
  const auto bits = static_cast<unsigned>(std::countr_zero(kTileBytes / element_bytes));
  const unsigned axes = volume ? 3 : 2;
  auto& tile = properties->tileExtent;
  tile.width = 1U << ((bits + axes - 1) / axes);
  tile.height = 1U << ((bits + axes - 2) / axes);
  tile.depth = volume ? 1U << (bits / axes) : 1;
}

}  // namespace

Tiling::Tiling(const CUDA_ARRAY3D_DESCRIPTOR& descriptor, size_t element_bytes, unsigned levels)
    : deferred_((descriptor.Flags & CUDA_ARRAY3D_SPARSE) == 0),
      layered_((descriptor.Flags & CUDA_ARRAY3D_LAYERED) != 0),
      element_bytes_(element_bytes),
      layers_(layered_ ? descriptor.Depth : 1) {
  const uint64_t height = std::max<uint64_t>(descriptor.Height, 1);
  const uint64_t depth = std::max<uint64_t>(descriptor.Depth, 1);
  // The faces of cubes, which only deferred mapping has, are layers too.
  const bool flat = layered_ || (descriptor.Flags & CUDA_ARRAY3D_CUBEMAP) != 0;
  for (unsigned i = 0; i < levels; ++i) {
    levels_.push_back({std::max<uint64_t>(descriptor.Width >> i, 1),
                       std::max<uint64_t>(height >> i, 1),
                       flat ? depth : std::max<uint64_t>(depth >> i, 1), nullptr});
  }
  unsigned number = 0;
  uint64_t tiles = 0;
  if (!deferred_) {
    choose_tile(&properties_, element_bytes, !flat && descriptor.Depth != 0);
    for (; number < levels && !in_tail(levels_[number]); ++number) {
      tiles = lay_out_tiles(&levels_[number], tiles);
    }
    properties_.miptailFirstLevel = number < levels ? number : 0;
    if (number == 0) properties_.flags = CU_ARRAY_SPARSE_PROPERTIES_SINGLE_MIPTAIL;
  }
  if (number < levels) tiles = lay_out_tail(number, tiles);
  places_ = std::make_shared<TilePlaces>(tiles);
  for (Level& level : levels_) level.memory->places = places_;
}

/// Levels that are smaller than a tile in any direction.
bool Tiling::in_tail(const Level& level) const {
  const auto& tile = properties_.tileExtent;
  return level.width < tile.width || level.height < tile.height || level.slices < tile.depth;
}

uint64_t Tiling::lay_out_tiles(Level* level, uint64_t first) const {
  const auto& tile = properties_.tileExtent;
  auto memory = std::make_shared<TiledLevel>();
  memory->first = first;
  memory->tile = {tile.width * element_bytes_, tile.height, tile.depth};
  memory->tiles = {quotient_up(level->width, tile.width), quotient_up(level->height, tile.height)};
  level->memory = memory;
  return first + memory->tiles[0] * memory->tiles[1] * quotient_up(level->slices, tile.depth);
}

/// What is in a tail lies level by level, each layer in a tail of its own unless there is one for
/// all.
uint64_t Tiling::lay_out_tail(unsigned number, uint64_t first) {
  constexpr uint64_t kAlignment = 512;
  const bool single = number == 0;
  uint64_t bytes = 0;
  for (unsigned i = number; i < levels_.size(); ++i) {
    Level& level = levels_[i];
    level.memory = std::make_shared<TiledLevel>();
    level.memory->first = first;
    level.memory->begin = bytes;
    level.memory->row_bytes = level.width * element_bytes_;
    level.memory->slice_bytes = level.memory->row_bytes * level.height;
    const uint64_t slices = single || !layered_ ? level.slices : 1;
    bytes += round_up(level.memory->slice_bytes * slices, kAlignment);
  }
  bytes = round_up(bytes, kTileBytes);
  tail_first_ = first;
  if (!deferred_) properties_.miptailSize = bytes;
  const uint64_t tails = single ? 1 : layers_;
  for (unsigned i = number; layered_ && !single && i < levels_.size(); ++i) {
    levels_[i].memory->slice_bytes = bytes;
  }
  return first + tails * bytes / kTileBytes;
}

CUresult Tiling::tiles_of(const CUarrayMapInfo& info, std::vector<size_t>* out) const {
  if (deferred_) {
    for (size_t i = 0; i < places_->count(); ++i) out->push_back(i);
    return CUDA_SUCCESS;
  }
  switch (info.subresourceType) {
    case CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_SPARSE_LEVEL:
      return tiles_of_level(info, out);
    case CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_MIPTAIL:
      return tiles_of_tail(info, out);
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult Tiling::tiles_of_level(const CUarrayMapInfo& info, std::vector<size_t>* out) const {
  const auto& from = info.subresource.sparseLevel;
  const auto& tile = properties_.tileExtent;
  if (from.level >= levels_.size() || from.layer >= layers_ ||
      levels_[from.level].memory->tile[0] == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const Level& level = levels_[from.level];
  // Whole tiles, of which the last one may reach over the edge.
  const auto whole = [](uint64_t offset, uint64_t extent, uint64_t unit, uint64_t size) {
    return extent != 0 && offset % unit == 0 && offset < size &&
           (extent % unit == 0 ? offset + extent <= round_up(size, unit) : offset + extent == size);
  };
  if (!whole(from.offsetX, from.extentWidth, tile.width, level.width) ||
      !whole(from.offsetY, from.extentHeight, tile.height, level.height) ||
      !whole(from.offsetZ, from.extentDepth, tile.depth, layered_ ? 1 : level.slices)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const auto& tiles = level.memory->tiles;
  for (uint64_t z = 0; z < quotient_up(from.extentDepth, tile.depth); ++z) {
    for (uint64_t y = 0; y < quotient_up(from.extentHeight, tile.height); ++y) {
      for (uint64_t x = 0; x < quotient_up(from.extentWidth, tile.width); ++x) {
        const uint64_t slice = from.layer + from.offsetZ / tile.depth + z;
        const uint64_t row = slice * tiles[1] + from.offsetY / tile.height + y;
        out->push_back(level.memory->first + row * tiles[0] + from.offsetX / tile.width + x);
      }
    }
  }
  return CUDA_SUCCESS;
}

CUresult Tiling::tiles_of_tail(const CUarrayMapInfo& info, std::vector<size_t>* out) const {
  const auto& from = info.subresource.miptail;
  const uint64_t bytes = properties_.miptailSize;
  const uint64_t tails = properties_.flags != 0 ? 1 : layers_;
  if (from.layer >= tails || from.size == 0 || from.offset % kTileBytes != 0 ||
      from.size % kTileBytes != 0 || from.size > bytes || from.offset > bytes - from.size) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const uint64_t first = tail_first_ + (from.layer * bytes + from.offset) / kTileBytes;
  for (uint64_t i = 0; i < from.size / kTileBytes; ++i) out->push_back(first + i);
  return CUDA_SUCCESS;
}

}  // namespace softgpu
