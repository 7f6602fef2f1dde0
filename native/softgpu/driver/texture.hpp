// Textures, surfaces and references as programs describe them, and the views that kernels get.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <variant>

#include "../engine/textures.hpp"
#include "array.hpp"

namespace softgpu {

/// What kernels name, of all devices: names are never used for two things.
TextureTable& texture_table();

/// Fills in the memory of a view; the element's format too, unless it has one of its own.
void look_at(const Array& array, TextureView* view);
void set_format(CUarray_format format, int channels, TextureView* view);

/// Rows of a two-dimensional texture in memory, or with a height of 0 bytes of linear memory.
struct BoundMemory {
  CUdeviceptr address = 0;
  size_t width = 0;  ///< in elements; of linear memory in bytes
  size_t height = 0;
  size_t pitch = 0;
};

/// A texture or surface reference, of a module or of none. Each launch of a kernel that names it
/// takes it as it is then.
struct TextureReference {
  std::mutex mutex;
  bool surface = false;
  bool of_module = false;
  std::variant<std::monostate, CUarray, CUmipmappedArray, BoundMemory> bound;
  CUarray_format format = CU_AD_FORMAT_FLOAT;
  int channels = 1;
  std::array<CUaddress_mode, 3> edges{CU_TR_ADDRESS_MODE_CLAMP, CU_TR_ADDRESS_MODE_CLAMP,
                                      CU_TR_ADDRESS_MODE_CLAMP};
  CUfilter_mode filter = CU_TR_FILTER_MODE_POINT;
  CUfilter_mode level_filter = CU_TR_FILTER_MODE_POINT;
  float level_bias = 0, least_level = 0, most_level = 0;
  unsigned anisotropy = 0;
  std::array<float, 4> border{};
  unsigned flags = 0;

  std::shared_ptr<const TextureView> view();
};

HandleTable<TextureReference, CUtexref, 23>& texture_references();
HandleTable<TextureReference, CUsurfref, 24>& surface_references();

}  // namespace softgpu
