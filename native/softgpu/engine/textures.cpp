// How texels become values: formats, places beyond the edge, mixing.
// SPDX-License-Identifier: Apache-2.0
#include "textures.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <mutex>

#include "numeric.hpp"

namespace softgpu {
namespace {

/// The index that stands for `i` among `size` elements; -1: the border's colour.
int64_t inside(int64_t i, int64_t size, Edge edge, bool normalized) {
  if (i >= 0 && i < size) return i;
  if (edge == Edge::border) return -1;
  // Only normalized places can be taken up again on the other side.
  if (normalized && edge == Edge::wrap) return ((i % size) + size) % size;
  if (normalized && edge == Edge::mirror) {
    const int64_t around = ((i % (2 * size)) + 2 * size) % (2 * size);
    return around < size ? around : 2 * size - 1 - around;
  }
  return std::clamp<int64_t>(i, 0, size - 1);
}

/// One channel as a kernel gets it.
uint32_t channel(const TextureView& view, const unsigned char* at) {
  const auto as_float = [&](double value, double most) {
    return std::bit_cast<uint32_t>(static_cast<float>(std::max(value / most, -1.0)));
  };
  uint16_t wide = 0;
  uint32_t whole = 0;
  std::memcpy(&wide, at, std::min<uint32_t>(view.channel_bytes(), 2));
  std::memcpy(&whole, at, view.channel_bytes());
  const auto s8 = static_cast<int8_t>(at[0]);
  const auto s16 = static_cast<int16_t>(wide);
  switch (view.format) {
    case TexelFormat::u8:
      return view.integers ? at[0] : as_float(at[0], 255);
    case TexelFormat::s8:
      return view.integers ? static_cast<uint32_t>(s8) : as_float(s8, 127);
    case TexelFormat::u16:
      return view.integers ? wide : as_float(wide, 65535);
    case TexelFormat::s16:
      return view.integers ? static_cast<uint32_t>(s16) : as_float(s16, 32767);
    case TexelFormat::f16:
      return std::bit_cast<uint32_t>(simt::plain::half_to_float(wide));
    default:
      return whole;
  }
}

bool holds_floats(const TextureView& view) {
  const bool small = view.format != TexelFormat::u32 && view.format != TexelFormat::s32;
  const bool real = view.format == TexelFormat::f16 || view.format == TexelFormat::f32;
  return small && (real || !view.integers);
}

Texel border(const TextureView& view) {
  Texel out{};
  for (size_t c = 0; c < view.channels; ++c) {
    out[c] = holds_floats(view) ? std::bit_cast<uint32_t>(view.border[c])
                                : static_cast<uint32_t>(static_cast<int64_t>(view.border[c]));
  }
  return out;
}

/// The texel at whole places, which may lie beyond the edge.
bool fetch(const TextureView& view, const TexturePlace& place, std::array<int64_t, 3> at,
           TexelMemory memory, Texel* out) {
  *out = {};
  for (int k = 0; k < place.dimensions; ++k) {
    const auto axis = static_cast<size_t>(k);
    const int64_t size = view.extent[axis];
    if (view.memory && (at[axis] < 0 || at[axis] >= size)) return true;
    at[axis] = inside(at[axis], size, view.edges[axis], view.normalized);
    if (at[axis] < 0) {
      *out = border(view);
      return true;
    }
  }
  if (place.layer >= 0) {
    const auto axis = static_cast<size_t>(place.dimensions);
    at[axis] = std::min<int64_t>(place.layer, view.extent[axis] - 1);
    // The layers of lines are rows.
  }
  unsigned char bytes[16];
  const uint64_t address =
      view.address(static_cast<uint64_t>(at[0]) * view.texel_bytes(), static_cast<uint64_t>(at[1]),
                   static_cast<uint64_t>(at[2]), view.texel_bytes());
  if (address == 0) {
    std::memset(bytes, 0, sizeof bytes);
  } else if (!memory.read(memory.context, address, view.texel_bytes(), bytes)) {
    return false;
  }
  for (size_t c = 0; c < view.channels; ++c) {
    (*out)[c] = channel(view, bytes + c * view.channel_bytes());
  }
  return true;
}

/// The weighted mean of the neighbours; the device has 8 bits for each weight.
bool mix(const TextureView& view, const TexturePlace& place, const std::array<float, 3>& at,
         TexelMemory memory, Texel* out) {
  std::array<int64_t, 3> low{};
  std::array<float, 3> part{};
  for (int k = 0; k < place.dimensions; ++k) {
    const auto axis = static_cast<size_t>(k);
    const float from = at[axis] - 0.5F;
    low[axis] = static_cast<int64_t>(std::floor(from));
    part[axis] = std::round((from - std::floor(from)) * 256.0F) / 256.0F;
  }
  std::array<float, 4> sum{};
  for (unsigned corner = 0; corner < 1U << place.dimensions; ++corner) {
    std::array<int64_t, 3> where{};
    float weight = 1;
    for (int k = 0; k < place.dimensions; ++k) {
      const auto axis = static_cast<size_t>(k);
      const bool high = (corner >> k & 1) != 0;
      where[axis] = low[axis] + (high ? 1 : 0);
      weight *= high ? part[axis] : 1 - part[axis];
    }
    Texel texel;
    if (!fetch(view, place, where, memory, &texel)) return false;
    for (size_t c = 0; c < 4; ++c) sum[c] += weight * std::bit_cast<float>(texel[c]);
  }
  for (size_t c = 0; c < 4; ++c) (*out)[c] = std::bit_cast<uint32_t>(sum[c]);
  return true;
}

}  // namespace

uint32_t TextureView::channel_bytes() const {
  switch (format) {
    case TexelFormat::none:
      return 0;
    case TexelFormat::u8:
    case TexelFormat::s8:
      return 1;
    case TexelFormat::u16:
    case TexelFormat::s16:
    case TexelFormat::f16:
      return 2;
    default:
      return 4;
  }
}

uint64_t TextureView::address(uint64_t x_bytes, uint64_t y, uint64_t z, uint32_t bytes) const {
  if (!tiles) return base + z * slice_bytes + y * row_bytes + x_bytes;
  uint64_t run = 0;
  const uint64_t found = tiles->find(x_bytes, y, z, &run);
  return run < bytes ? 0 : found;
}

uint64_t TextureTable::add(std::shared_ptr<const TextureView> view) {
  const std::unique_lock lock(mutex_);
  views_[next_] = std::move(view);
  return next_++;
}

void TextureTable::set(uint64_t name, std::shared_ptr<const TextureView> view) {
  const std::unique_lock lock(mutex_);
  views_[name] = std::move(view);
}

void TextureTable::remove(uint64_t name) {
  const std::unique_lock lock(mutex_);
  views_.erase(name);
}

std::shared_ptr<const TextureView> TextureTable::find(uint64_t name) const {
  const std::shared_lock lock(mutex_);
  const auto found = views_.find(name);
  return found == views_.end() ? nullptr : found->second;
}

bool sample(const TextureView& view, const TexturePlace& place, TexelMemory memory, Texel* out) {
  *out = {};
  if (view.empty()) return true;
  std::array<int64_t, 3> index{};
  std::array<float, 3> at{};
  // Far beyond any edge, and still a number that can be counted with.
  constexpr float kFar = 1e9F;
  for (int k = 0; k < place.dimensions; ++k) {
    const auto axis = static_cast<size_t>(k);
    at[axis] = place.at[axis] * (view.normalized ? static_cast<float>(view.extent[axis]) : 1.0F);
    at[axis] = std::isnan(at[axis]) ? 0 : std::clamp(at[axis], -kFar, kFar);
    index[axis] = place.whole ? place.index[axis] : static_cast<int64_t>(std::floor(at[axis]));
  }
  if (view.mixes && !place.whole && !view.memory && holds_floats(view)) {
    return mix(view, place, at, memory, out);
  }
  return fetch(view, place, index, memory, out);
}

}  // namespace softgpu
