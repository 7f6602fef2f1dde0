// Arrays: on the software GPU rows and slices without gaps.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "context.hpp"
#include "handles.hpp"
#include "sparse_array.hpp"

namespace softgpu {

struct Array {
  CUDA_ARRAY3D_DESCRIPTOR descriptor{};
  Device* device = nullptr;
  uint64_t context_id = 0;
  uint64_t base = 0;  ///< in the device's memory
  size_t element_bytes = 0;
  bool level = false;  ///< of a mipmapped array, which frees it
  /// Of one whose memory the program maps, instead of a base. A level has the tiles alone.
  std::shared_ptr<const Tiling> tiling;
  std::shared_ptr<const TiledLevel> tiles;

  size_t rows() const { return descriptor.Height != 0 ? descriptor.Height : 1; }
  size_t slices() const { return descriptor.Depth != 0 ? descriptor.Depth : 1; }
  size_t pitch() const { return descriptor.Width * element_bytes; }
  size_t bytes() const { return pitch() * rows() * slices(); }
};

struct MipmappedArray {
  uint64_t context_id = 0;
  std::vector<CUarray> levels;
  std::shared_ptr<const Tiling> tiling;  ///< where the program maps its memory
};

HandleTable<Array, CUarray, 20>& arrays();
HandleTable<MipmappedArray, CUmipmappedArray, 21>& mipmapped_arrays();

/// The context ends: its arrays, whose memory is gone, are known no more.
void forget_arrays(const Context& context);

}  // namespace softgpu
