// Arrays whose memory the program maps: how they are divided into tiles, and what maps those.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <memory>
#include <vector>

#include "../engine/tiles.hpp"

namespace softgpu {

/// The tiles of an array with all its levels. Deferred mapping: all of it is mapped at once.
class Tiling {
 public:
  /// `levels`: at least one. The descriptor has been checked.
  Tiling(const CUDA_ARRAY3D_DESCRIPTOR& descriptor, size_t element_bytes, unsigned levels);

  const CUDA_ARRAY_SPARSE_PROPERTIES& properties() const { return properties_; }
  uint64_t bytes() const { return places_->count() * kTileBytes; }
  bool deferred() const { return deferred_; }
  std::shared_ptr<const TiledLevel> level(unsigned number) const { return levels_[number].memory; }
  const std::shared_ptr<TilePlaces>& places() const { return places_; }
  /// The tiles that the operation is about, in the order in which they take memory;
  /// CUDA_ERROR_INVALID_VALUE where they are none, or not whole.
  CUresult tiles_of(const CUarrayMapInfo& info, std::vector<size_t>* out) const;

 private:
  struct Level {
    uint64_t width = 0, height = 0, slices = 0;  ///< slices: of depth, or layers
    std::shared_ptr<TiledLevel> memory;
  };
  bool in_tail(const Level& level) const;
  uint64_t lay_out_tiles(Level* level, uint64_t first) const;
  /// From `number` on; returns the first tile behind.
  uint64_t lay_out_tail(unsigned number, uint64_t first);
  CUresult tiles_of_level(const CUarrayMapInfo& info, std::vector<size_t>* out) const;
  CUresult tiles_of_tail(const CUarrayMapInfo& info, std::vector<size_t>* out) const;

  CUDA_ARRAY_SPARSE_PROPERTIES properties_{};
  bool deferred_ = false, layered_ = false;
  uint64_t element_bytes_ = 0, layers_ = 1;
  uint64_t tail_first_ = 0;  ///< its first tile
  std::vector<Level> levels_;
  std::shared_ptr<TilePlaces> places_;
};

}  // namespace softgpu
