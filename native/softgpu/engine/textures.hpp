// What kernels read through textures and reach through surfaces, and how texels become values.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <shared_mutex>
#include <utility>
#include <vector>

#include "tiles.hpp"

namespace softgpu {

enum class TexelFormat : uint8_t { none, u8, s8, u16, s16, u32, s32, f16, f32 };
/// What a place beyond the edge means; the values are CUaddress_mode's.
enum class Edge : uint8_t { wrap, clamp, mirror, border };

/// A texture or a surface: memory, and how it is looked at. Places are in elements.
struct TextureView {
  uint64_t base = 0;  ///< 0: nothing; it reads as zeros, and what is written goes nowhere
  std::array<uint32_t, 3> extent{1, 1, 1};  ///< of a layered one the last that it has is its layers
  uint64_t row_bytes = 0;
  uint64_t slice_bytes = 0;
  std::shared_ptr<const TiledLevel> tiles;  ///< instead of a base: memory that may be missing
  TexelFormat format = TexelFormat::none;
  uint8_t channels = 0;
  bool memory = false;  ///< linear memory: zeros beyond its end
  bool mixes = false;   ///< neighbours, instead of the nearest
  bool normalized = false;
  bool integers = false;  ///< gives small integers as they are, not as a part of 1
  std::array<Edge, 3> edges{Edge::clamp, Edge::clamp, Edge::clamp};
  std::array<float, 4> border{};

  uint32_t channel_bytes() const;
  uint32_t texel_bytes() const { return channel_bytes() * channels; }
  bool empty() const { return base == 0 && !tiles; }
  /// Where `bytes` bytes lie; 0: nowhere, they read as zeros and what is written is lost.
  uint64_t address(uint64_t x_bytes, uint64_t y, uint64_t z, uint32_t bytes) const;
};

/// Views by the addresses of the references that a kernel names.
using BoundReferences = std::vector<std::pair<uint64_t, std::shared_ptr<const TextureView>>>;

/// The views that kernels name: objects by numbers of this table's, references by the address of
/// their variable.
class TextureTable {
 public:
  uint64_t add(std::shared_ptr<const TextureView> view);
  void set(uint64_t name, std::shared_ptr<const TextureView> view);
  void remove(uint64_t name);
  /// Null where nothing has that name.
  std::shared_ptr<const TextureView> find(uint64_t name) const;

 private:
  mutable std::shared_mutex mutex_;
  std::map<uint64_t, std::shared_ptr<const TextureView>> views_;
  uint64_t next_ = 1;
};

/// Reads memory for a texture: false where there is none. `context` is the reader's own.
struct TexelMemory {
  bool (*read)(void* context, uint64_t address, uint32_t bytes, void* out) = nullptr;
  void* context = nullptr;
};

/// Four channels as a kernel gets them: bits of floats, or integers.
using Texel = std::array<uint32_t, 4>;

/// The value at a place. `whole`: places are whole numbers, and nothing is mixed. `layer` and
/// `dimensions`, without the layers, are as the instruction has them. False: no memory there.
struct TexturePlace {
  int dimensions = 1;
  int64_t layer = -1;  ///< negative: not layered
  bool whole = false;
  std::array<float, 3> at{};
  std::array<int32_t, 3> index{};  ///< where `whole`
};
bool sample(const TextureView& view, const TexturePlace& place, TexelMemory memory, Texel* out);

}  // namespace softgpu
