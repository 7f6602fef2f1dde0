// Decoding of what reads textures and reaches surfaces.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "decoder.hpp"

namespace softgpu::simt {
namespace {

/// How many coordinates a geometry has, and whether the first one of the instruction is a layer.
struct Geometry {
  std::string_view word;
  uint8_t dimensions;
  bool layered;
};

constexpr Geometry kGeometries[] = {
    {"1d", 1, false}, {"2d", 2, false}, {"3d", 3, false}, {"a1d", 1, true}, {"a2d", 2, true}};

}  // namespace

/// The texture that [name, ...] or [register, ...] names, as a slot of 64 bits.
bool Decoder::texture_name(const Operand& o, SlotRef* out) {
  if (o.kind != Kind::address || o.items.empty()) return fail("expected a texture or surface");
  const Operand& name = o.items[0];
  if (name.kind == Kind::symbol && !name.variable) {
    const ptx::Variable* v = module_.variable(state_.function->text, name.name);
    if (v && v->reference == ptx::Reference::none) return fail("this is no texture or surface");
    if (v) references_.insert(v);
  }
  return source(name, 8, out);
}

bool Decoder::texture_places(const Operand& o, bool floats, TextureUse* use) {
  const auto* geometry = std::find_if(std::begin(kGeometries), std::end(kGeometries),
                                      [&](const Geometry& g) { return has(g.word); });
  if (geometry == std::end(kGeometries)) return unknown("a geometry");
  use->dimensions = geometry->dimensions;
  use->layered = geometry->layered;
  if (o.items.size() != 2) return unknown("a sampler of its own");
  const Operand& places = o.items[1];
  std::vector<const Operand*> each;
  if (places.kind == Kind::vector) {
    for (const Operand& one : places.items) each.push_back(&one);
  } else {
    each.push_back(&places);
  }
  const size_t needed = use->dimensions + (use->layered ? 1U : 0U);
  if (each.size() < needed || each.size() > 4) return fail("the place has another length");
  for (size_t k = 0; k < needed; ++k) {
    const bool layer = use->layered && k == 0;
    if (!source(*each[k], 4, &use->slots[4 + k], floats && !layer ? 'f' : 's')) return false;
  }
  return true;
}

bool Decoder::texture_values(const Operand& o, unsigned bytes, bool written, TextureUse* use) {
  std::vector<const Operand*> each;
  if (o.kind == Kind::vector) {
    for (const Operand& one : o.items) each.push_back(&one);
  } else {
    each.push_back(&o);
  }
  if (each.size() > 4) return fail("the vector has another length");
  use->count = static_cast<uint8_t>(each.size());
  for (size_t k = 0; k < each.size(); ++k) {
    if (each[k]->kind == Kind::sink) continue;
    const bool known = written ? destination(*each[k], bytes, &use->slots[k])
                               : source(*each[k], bytes, &use->slots[k]);
    if (!known) return false;
  }
  return true;
}

void Decoder::emit_texture(OpKind kind, const TextureUse& use, SlotRef name) {
  Op& op = emit(kind);
  op.a = name;
  op.count = use.count;
  op.dsize = use.bytes;
  op.variant = use.dimensions;
  op.leads = use.layered;
  op.imm = use.extra;
  op.target = static_cast<uint32_t>(program_.vectors.size());
  program_.vectors.push_back({use.slots.begin(), use.slots.end()});
}

/// tex.geometry.v4.type.type of the places: the value at a place.
bool Decoder::texture() {
  TextureUse use;
  SlotRef name;
  if (!count_is(2)) return false;
  if (has("level") || has("grad") || !has("v4") || words().size() < 4) return unknown();
  const std::string_view values = words()[words().size() - 2];
  const std::string_view places = words().back();
  const bool floats = places == "f32";
  if (ptx::type_bits(values) != 32 || (!floats && places != "s32")) return unknown();
  use.bytes = 4;
  use.extra = floats ? 0 : 1;
  if (!texture_name(operands()[1], &name) || !texture_places(operands()[1], floats, &use) ||
      !texture_values(operands()[0], 4, true, &use)) {
    return false;
  }
  emit_texture(OpKind::texture, use, name);
  return true;
}

/// txq and suq: the width, the height or the depth.
bool Decoder::texture_query() {
  TextureUse use;
  SlotRef name;
  if (!count_is(2)) return false;
  use.extra = has("width") ? 0 : has("height") ? 1 : has("depth") ? 2 : 3;
  if (use.extra == 3 || has("level")) return unknown();
  use.bytes = 4;
  if (!texture_name(operands()[1], &name) || !texture_values(operands()[0], 4, true, &use)) {
    return false;
  }
  emit_texture(OpKind::texture_query, use, name);
  return true;
}

/// suld.b and sust.b: bits at a place whose x counts bytes.
bool Decoder::surface() {
  TextureUse use;
  SlotRef name;
  const bool writes = words()[0] == "sust";
  if (!count_is(2)) return false;
  unsigned bits = 0;
  for (std::string_view w : words()) bits = std::max(bits, ptx::type_bits(w));
  if (!has("b") || bits < 8 || bits > 64) return unknown();
  // Beyond the edge: a fault, the nearest, or nothing.
  use.extra = has("clamp") ? 1 : has("zero") ? 2 : 0;
  use.extra |= uint64_t{bits / 8} << 8;
  use.bytes = static_cast<uint8_t>(std::max(bits / 8, 2U));
  const Operand& place = operands()[writes ? 0 : 1];
  if (!texture_name(place, &name) || !texture_places(place, false, &use) ||
      !texture_values(operands()[writes ? 1 : 0], use.bytes, !writes, &use)) {
    return false;
  }
  emit_texture(writes ? OpKind::surface_store : OpKind::surface_load, use, name);
  return true;
}

}  // namespace softgpu::simt
