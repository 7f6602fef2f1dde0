// Textures, surfaces and references as programs describe them, and the views that kernels get.
// SPDX-License-Identifier: Apache-2.0
#include "texture.hpp"

#include <algorithm>

namespace softgpu {
namespace {

TexelFormat texel_format(CUarray_format format) {
  switch (format) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
      return TexelFormat::u8;
    case CU_AD_FORMAT_SIGNED_INT8:
      return TexelFormat::s8;
    case CU_AD_FORMAT_UNSIGNED_INT16:
      return TexelFormat::u16;
    case CU_AD_FORMAT_SIGNED_INT16:
      return TexelFormat::s16;
    case CU_AD_FORMAT_UNSIGNED_INT32:
      return TexelFormat::u32;
    case CU_AD_FORMAT_SIGNED_INT32:
      return TexelFormat::s32;
    case CU_AD_FORMAT_HALF:
      return TexelFormat::f16;
    case CU_AD_FORMAT_FLOAT:
      return TexelFormat::f32;
    default:
      return TexelFormat::none;
  }
}

void look_at(const BoundMemory& memory, TextureView* view) {
  view->base = memory.address;
  view->memory = memory.height == 0;
  const size_t width =
      view->memory ? memory.width / std::max(view->texel_bytes(), 1U) : memory.width;
  view->extent = {static_cast<uint32_t>(width),
                  static_cast<uint32_t>(std::max<size_t>(memory.height, 1)), 1};
  view->row_bytes = memory.pitch;
}

/// The array that it is bound to, if it still is there; of a mipmapped one the first level.
std::shared_ptr<Array> bound_array(const TextureReference& reference) {
  if (const auto* array = std::get_if<CUarray>(&reference.bound)) return arrays().find(*array);
  const auto* mipmap = std::get_if<CUmipmappedArray>(&reference.bound);
  const auto levels = mipmap != nullptr ? mipmapped_arrays().find(*mipmap) : nullptr;
  return levels ? arrays().find(levels->levels.front()) : nullptr;
}

}  // namespace

TextureTable& texture_table() {
  static auto& table = *new TextureTable;
  return table;
}

HandleTable<TextureReference, CUtexref, 23>& texture_references() {
  static auto& table = *new HandleTable<TextureReference, CUtexref, 23>;
  return table;
}
HandleTable<TextureReference, CUsurfref, 24>& surface_references() {
  static auto& table = *new HandleTable<TextureReference, CUsurfref, 24>;
  return table;
}

void set_format(CUarray_format format, int channels, TextureView* view) {
  view->format = texel_format(format);
  view->channels = static_cast<uint8_t>(std::clamp(channels, 0, 4));
}

void look_at(const Array& array, TextureView* view) {
  if (view->format == TexelFormat::none) {
    set_format(array.descriptor.Format, static_cast<int>(array.descriptor.NumChannels), view);
  }
  view->base = array.base;
  view->tiles = array.tiles;
  view->extent = {static_cast<uint32_t>(array.descriptor.Width),
                  static_cast<uint32_t>(array.rows()), static_cast<uint32_t>(array.slices())};
  view->row_bytes = array.pitch();
  view->slice_bytes = array.pitch() * array.rows();
  // The layers of lines are where planes have rows.
  if (array.descriptor.Height == 0) view->extent[1] = view->extent[2];
}

std::shared_ptr<const TextureView> TextureReference::view() {
  const std::lock_guard lock(mutex);
  auto view = std::make_shared<TextureView>();
  if (!surface) set_format(format, channels, view.get());
  if (const auto* memory = std::get_if<BoundMemory>(&bound)) {
    look_at(*memory, view.get());
  } else if (const auto array = bound_array(*this)) {
    look_at(*array, view.get());
  }
  if (view->texel_bytes() == 0) {
    view->base = 0;
    view->tiles.reset();
  }
  view->mixes = filter == CU_TR_FILTER_MODE_LINEAR;
  view->normalized = (flags & CU_TRSF_NORMALIZED_COORDINATES) != 0;
  view->integers = (flags & CU_TRSF_READ_AS_INTEGER) != 0;
  for (size_t k = 0; k < edges.size(); ++k) view->edges[k] = static_cast<Edge>(edges[k] & 3);
  view->border = border;
  return view;
}

}  // namespace softgpu
