// What reads textures and reaches surfaces, lane by lane.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "executor.hpp"

namespace softgpu::simt {
namespace {

/// Memory as kernels may reach it; remembers the window that it found last.
struct Reader {
  MemoryView* view;
  int lane;
  Window window;

  char* find(uint64_t address, uint32_t bytes) {
    const bool known = bytes <= window.size && address - window.base <= window.size - bytes;
    if (!known && !find_window(view, MemorySpace::global, lane, address, bytes, &window)) {
      return nullptr;
    }
    return window.host + (address - window.base);
  }
  static bool read(void* context, uint64_t address, uint32_t bytes, void* out) {
    const char* from = static_cast<Reader*>(context)->find(address, bytes);
    if (from != nullptr) std::memcpy(out, from, bytes);
    return from != nullptr;
  }
};

}  // namespace

/// What an instruction names, looked up again only where a lane names another; null: a fault.
const TextureView* Executor::texture_named(const Op& op, int lane, NamedTexture* last) {
  const uint64_t name = lanes_of<uint64_t>(op.a)[lane];
  if (last->view && last->name == name) return last->view.get();
  last->view = launch_->launch.textures ? launch_->launch.textures->find(name) : nullptr;
  last->name = name;
  if (!last->view) fault(Fault::illegal_address, op, lane, "no texture or surface has this name");
  return last->view.get();
}

bool Executor::texture(const Op& op, LaneSet& set) {
  const auto& slots = program_->vectors[op.target];
  NamedTexture last;
  Reader reader{&view_, 0, {}};
  bool ok = true;
  each_lane(set.bits, [&](int lane) {
    if (!ok) return;
    const TextureView* view = texture_named(op, lane, &last);
    ok = view != nullptr;
    if (!ok) return;
    Texel texel{};
    if (op.kind == OpKind::texture_query) {
      texel[0] = view->empty() ? 0 : view->extent[op.imm];
    } else {
      TexturePlace place;
      place.dimensions = op.variant;
      place.whole = op.imm != 0;
      const size_t first = op.leads ? 5 : 4;
      if (op.leads) place.layer = std::max(lanes_of<int32_t>(slots[4])[lane], 0);
      for (size_t k = 0; k < op.variant; ++k) {
        place.index[k] = lanes_of<int32_t>(slots[first + k])[lane];
        place.at[k] = lanes_of<float>(slots[first + k])[lane];
      }
      reader.lane = lane;
      if (!sample(*view, place, {&Reader::read, &reader}, &texel)) {
        ok = fault(Fault::illegal_address, op, lane, "a texture's memory is gone");
        return;
      }
    }
    for (size_t k = 0; k < op.count; ++k) {
      if (slots[k] != kNoSlot) lanes_of<uint32_t>(slots[k])[lane] = texel[k];
    }
  });
  return ok;
}

bool Executor::surface(const Op& op, LaneSet& set) {
  enum class Beyond : uint8_t { fault, nearest, nothing };
  const auto& slots = program_->vectors[op.target];
  const auto beyond = static_cast<Beyond>(op.imm & 0xff);
  const auto bytes = static_cast<uint32_t>(op.imm >> 8);
  const uint32_t whole = bytes * op.count;
  NamedTexture last;
  Reader reader{&view_, 0, {}};
  bool ok = true;
  each_lane(set.bits, [&](int lane) {
    if (!ok) return;
    const TextureView* view = texture_named(op, lane, &last);
    ok = view != nullptr;
    if (!ok) return;
    const bool loads = op.kind == OpKind::surface_load;
    std::array<int64_t, 3> at{};
    const size_t first = op.leads ? 5 : 4;
    for (size_t k = 0; k < op.variant; ++k) at[k] = lanes_of<int32_t>(slots[first + k])[lane];
    if (op.leads) at[op.variant] = lanes_of<int32_t>(slots[4])[lane];
    bool inside = !view->empty();
    const size_t axes = op.variant + (op.leads ? 1U : 0U);
    for (size_t k = 0; k < axes && inside; ++k) {
      const int64_t size = k == 0 ? int64_t{view->extent[0]} * view->texel_bytes() - whole + 1
                                  : int64_t{view->extent[k]};
      if (at[k] >= 0 && at[k] < size) continue;
      if (beyond == Beyond::fault) {
        ok = fault(Fault::illegal_address, op, lane, "a place beyond a surface's edge");
        return;
      }
      inside = beyond == Beyond::nearest && size > 0;
      at[k] = std::clamp<int64_t>(at[k], 0, std::max<int64_t>(size - 1, 0));
    }
    char* memory = nullptr;
    const uint64_t address =
        inside ? view->address(static_cast<uint64_t>(at[0]), static_cast<uint64_t>(at[1]),
                               static_cast<uint64_t>(at[2]), whole)
               : 0;
    if (address != 0) {
      reader.lane = lane;
      memory = reader.find(address, whole);
      if (memory == nullptr) {
        ok = fault(Fault::illegal_address, op, lane, "a surface's memory is gone");
        return;
      }
    }
    for (size_t k = 0; k < op.count; ++k) {
      if (slots[k] == kNoSlot) continue;
      char* value = at_lane(slots[k], lane, op.dsize);
      if (loads) std::memset(value, 0, op.dsize);
      if (memory == nullptr) continue;
      char* from = memory + k * bytes;
      std::memcpy(loads ? value : from, loads ? from : value, bytes);
    }
  });
  return ok;
}

}  // namespace softgpu::simt
