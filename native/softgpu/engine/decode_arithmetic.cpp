// Decoding of arithmetic, comparisons, selections and moves.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "decoder.hpp"

namespace softgpu::simt {
namespace {

/// The key's type word for operations on bits, whatever the instruction calls the type.
std::string bits_type(std::string_view type) {
  if (type == "pred") return "pred";
  return "b" + std::to_string(ptx::type_bits(type));
}

uint8_t rounding(std::string_view word) {
  if (word == "rz") return kRoundZero;
  if (word == "rm") return kRoundDown;
  if (word == "rp") return kRoundUp;
  return kRoundNearest;
}

bool is_half(std::string_view type) { return type.find("f16") != std::string_view::npos; }

}  // namespace

/// Everything that is one handler named by its opcode and type, after noise words are dropped.
bool Decoder::arithmetic() {
  std::string_view op = words()[0];
  std::string_view type = words().back();
  if (words().size() < 2 || (ptx::type_bits(type) == 0)) return unknown();
  if (has("cc") || op == "addc" || op == "subc" || op == "madc") return carry();
  bool is_float = type_letter(type) == 'f';
  std::string key(op == "mad" && is_float ? "fma" : op);
  uint8_t mode = 0;
  bool saturate = false, relu = false, flush = false;
  for (size_t k = 1; k + 1 < words().size(); ++k) {
    std::string_view w = words()[k];
    if (is_float && (w == "rn" || w == "approx" || w == "full" || w == "noftz")) continue;
    if (is_float && (w == "rz" || w == "rm" || w == "rp")) {
      if (is_half(type)) return unknown();
      mode = static_cast<uint8_t>((mode & kFlush) | rounding(w));
      continue;
    }
    if (is_float && w == "ftz") {
      flush = true;
      if (!is_half(type)) mode |= kFlush;
      continue;
    }
    if (is_float && w == "sat") {
      saturate = true;
      continue;
    }
    if (is_half(type) && w == "relu") {
      relu = true;
      continue;
    }
    key += '.';
    key += w;
  }
  if (op == "and" || op == "or" || op == "xor" || op == "not" || op == "cnot" || op == "shl") {
    type = type == "pred" ? type : std::string_view();
    key += type.empty() ? "." + bits_type(words().back()) : ".pred";
  } else if (op == "shr") {
    char letter = type_letter(type) == 's' ? 's' : 'u';
    key += std::string(".") + letter + std::to_string(ptx::type_bits(type));
  } else if (op == "dp4a" || op == "dp2a" || !type.empty()) {
    key += '.';
    key += type;
  }
  return simple(key, words().back(), mode, saturate, relu, flush);
}

bool Decoder::simple(const std::string& key, std::string_view type, uint8_t mode, bool saturate,
                     bool relu, bool flush) {
  const AluEntry* e = find_alu(key);
  if (!e) return unknown();
  size_t n = e->sizes[2] ? 3 : e->sizes[1] ? 2 : 1;
  if (!count_is(n + 1)) return false;
  SlotRef d, s[3] = {};
  std::string_view op = words()[0];
  bool half = is_half(type);
  for (size_t k = 0; k < n; ++k) {
    if (!source(operands()[k + 1], e->sizes[k], &s[k], type_letter(type))) return false;
    if (flush && half) {
      SlotRef t = temp(e->sizes[k]);
      if (!alu("flush." + std::string(type), t, {s[k]})) return false;
      s[k] = t;
    }
  }
  if (!destination(operands()[0], e->dsize, &d)) return false;
  if (!alu(key, d, {s[0], n > 1 ? s[1] : s[0], n > 2 ? s[2] : s[0]}, 0, mode)) return false;
  std::string t(type);
  // Operations that pass bits through do not flush by the FPU's mode.
  bool passes = op == "neg" || op == "abs" || op == "min" || op == "max" || op == "copysign";
  if (flush && (half || passes) && !alu("flush." + t, d, {d})) return false;
  if (relu && !alu("relu." + t, d, {d})) return false;
  return !saturate || alu("sat." + t, d, {d});
}

/// add.cc, addc, sub.cc, subc, mad.cc, madc: the flag lives in a hidden register per lane.
bool Decoder::carry() {
  std::string_view op = words()[0];
  std::string type = std::string(ptx::type_bits(words().back()) == 64 ? "u64" : "u32");
  unsigned bytes = type == "u64" ? 8 : 4;
  if (state_.carry == kNoSlot) state_.carry = new_slot(4);
  SlotRef cc = state_.carry, d, a, b;
  bool multiply = op == "mad" || op == "madc";
  bool reads = op.ends_with('c'), writes = has("cc");
  bool subtract = op.starts_with("sub");
  if (!count_is(multiply ? 4 : 3) || !destination(operands()[0], bytes, &d)) return false;
  if (!source(operands()[1], bytes, &a) || !source(operands()[2], bytes, &b)) return false;
  if (multiply) {
    SlotRef product = temp(bytes), c;
    std::string_view signedness = words().back();
    if (!source(operands()[3], bytes, &c)) return false;
    std::string key = std::string("mul.") + (has("hi") ? "hi." : "lo.") + std::string(signedness);
    if (!alu(key, product, {a, b})) return false;
    a = product;
    b = c;
  }
  std::string flag = subtract ? (reads ? "borrowc." : "borrow.") : (reads ? "carryc." : "carry.");
  std::string value = subtract ? (reads ? "subc." : "sub.") : (reads ? "addc." : "add.");
  SlotRef next = temp(4);
  if (writes && !alu(flag + type, next, {a, b, cc})) return false;
  if (!alu(value + type, d, {a, b, cc})) return false;
  return !writes || move(4, cc, next);
}

bool Decoder::packed_relation(std::string_view relation, std::string_view type, SlotRef a,
                              SlotRef b, SlotRef lo, SlotRef hi, bool flush) {
  std::string single(type.substr(0, type.size() - 2));
  std::string key = "setp." + std::string(relation) + "." + single;
  for (uint64_t half = 0; half < 2; ++half) {
    SlotRef x = temp(2), y = temp(2);
    if (!alu("extract.16.32", x, {a}, half * 16) || !alu("extract.16.32", y, {b}, half * 16)) {
      return false;
    }
    if (flush && (!alu("flush." + single, x, {x}) || !alu("flush." + single, y, {y}))) return false;
    if (!alu(key, half ? hi : lo, {x, y})) return false;
  }
  return true;
}

/// d = a `relation` b, into a predicate slot.
bool Decoder::compare(std::string_view relation, std::string_view type, bool flush,
                      const Operand& a, const Operand& b, SlotRef d) {
  std::string key = "setp." + std::string(relation) + "." + std::string(type);
  const AluEntry* e = find_alu(key);
  if (!e) return unknown();
  SlotRef x, y;
  if (!source(a, e->sizes[0], &x, type_letter(type)) ||
      !source(b, e->sizes[1], &y, type_letter(type))) {
    return false;
  }
  bool half = is_half(type);
  if (flush && half) {
    SlotRef fx = temp(2), fy = temp(2);
    std::string flush_key = "flush." + std::string(type);
    if (!alu(flush_key, fx, {x}) || !alu(flush_key, fy, {y})) return false;
    x = fx;
    y = fy;
  }
  return alu(key, d, {x, y}, 0, flush && !half ? kFlush : 0);
}

bool Decoder::combine(std::string_view boolean, SlotRef d, SlotRef value, SlotRef other) {
  return alu(std::string(boolean) + ".pred", d, {value, other});
}

bool Decoder::setp() {
  if (!count_is(3, 4)) return false;
  std::string_view relation, boolean, type = words().back();
  bool flush = false;
  for (size_t k = 1; k + 1 < words().size(); ++k) {
    std::string_view w = words()[k];
    if (w == "ftz")
      flush = true;
    else if (w == "and" || w == "or" || w == "xor")
      boolean = w;
    else if (relation.empty())
      relation = w;
    else
      return unknown();
  }
  const Operand& to = operands()[0];
  SlotRef p, q = kNoSlot, other = kNoSlot;
  if (!destination(to.kind == Kind::pair ? to.items[0] : to, 1, &p)) return false;
  if (to.kind == Kind::pair && !destination(to.items[1], 1, &q)) return false;
  if ((operands().size() == 4) != !boolean.empty()) return fail("wrong number of operands");
  if (!boolean.empty() && !predicate_source(operands()[3], &other)) return false;
  bool packed = type.ends_with("x2");
  SlotRef value = temp(1), negated = temp(1);
  if (packed) {
    SlotRef a, b;
    if (!source(operands()[1], 4, &a) || !source(operands()[2], 4, &b)) return false;
    if (q == kNoSlot) return unknown();
    if (!packed_relation(relation, type, a, b, value, negated, flush)) return false;
  } else {
    bool plain = boolean.empty() && q == kNoSlot;
    if (!compare(relation, type, flush, operands()[1], operands()[2], plain ? p : value))
      return false;
    if (plain) return true;
    if (!alu("not.pred", negated, {value})) return false;
  }
  if (!boolean.empty()) {
    if (!combine(boolean, value, value, other)) return false;
    if (q != kNoSlot && !combine(boolean, negated, negated, other)) return false;
  }
  return move(1, p, value) && (q == kNoSlot || move(1, q, negated));
}

/// set.CmpOp{.BoolOp}.dtype.stype: like setp, but the result is all ones or 1.0.
bool Decoder::set() {
  if (!count_is(3, 4) || words().size() < 4) return unknown();
  std::string_view type = words().back(), to = words()[words().size() - 2], relation, boolean;
  bool flush = false;
  for (size_t k = 1; k + 2 < words().size(); ++k) {
    std::string_view w = words()[k];
    if (w == "ftz")
      flush = true;
    else if (w == "and" || w == "or" || w == "xor")
      boolean = w;
    else if (relation.empty())
      relation = w;
    else
      return unknown();
  }
  SlotRef value = temp(1), high = temp(1), other, d;
  bool packed = type.ends_with("x2");
  if (packed) {
    SlotRef a, b;
    if (!source(operands()[1], 4, &a) || !source(operands()[2], 4, &b)) return false;
    if (!packed_relation(relation, type, a, b, value, high, flush)) return false;
  } else if (!compare(relation, type, flush, operands()[1], operands()[2], value)) {
    return false;
  }
  if (!boolean.empty()) {
    if (!predicate_source(operands()[3], &other) || !combine(boolean, value, value, other))
      return false;
    if (packed && !combine(boolean, high, high, other)) return false;
  }
  unsigned bytes = ptx::type_bits(to) / 8;
  if (!destination(operands()[0], bytes, &d)) return false;
  if (packed) {
    uint64_t one = to == "f16x2" ? 0x3c00 : to == "bf16x2" ? 0x3f80 : 0xffff;
    SlotRef lo = temp(2), hi = temp(2);
    return alu("selp.b16", lo, {constant(one, 2), constant(0, 2), value}) &&
           alu("selp.b16", hi, {constant(one, 2), constant(0, 2), high}) &&
           alu("pack.16", d, {lo, hi});
  }
  uint64_t one = to == "f32"    ? 0x3f800000u
                 : to == "f16"  ? 0x3c00u
                 : to == "bf16" ? 0x3f80u
                                : ~uint64_t{0};
  return alu(bytes == 2 ? "selp.b16" : "selp.b32", d,
             {constant(one, bytes), constant(0, bytes), value});
}

bool Decoder::selp() {
  if (!count_is(4)) return false;
  std::string key = "selp." + bits_type(words().back());
  const AluEntry* e = find_alu(key);
  SlotRef d, a, b, p;
  if (!e) return unknown();
  char letter = type_letter(words().back());
  return source(operands()[1], e->dsize, &a, letter) &&
         source(operands()[2], e->dsize, &b, letter) && predicate_source(operands()[3], &p) &&
         destination(operands()[0], e->dsize, &d) && alu(key, d, {a, b, p});
}

/// slct.dtype.{s32,f32}
bool Decoder::slct() {
  if (!count_is(4) || words().size() < 3) return unknown();
  std::string_view type = words()[words().size() - 2];
  std::string key = "slct." + bits_type(type) + "." + std::string(words().back());
  const AluEntry* e = find_alu(key);
  SlotRef d, a, b, c;
  if (!e) return unknown();
  return source(operands()[1], e->dsize, &a, type_letter(type)) &&
         source(operands()[2], e->dsize, &b, type_letter(type)) &&
         source(operands()[3], 4, &c, type_letter(words().back())) &&
         destination(operands()[0], e->dsize, &d) &&
         alu(key, d, {a, b, c}, 0, has("ftz") ? kFlush : 0);
}

bool Decoder::bfi() {
  if (!count_is(5)) return false;
  std::string type(words().back());
  unsigned bytes = ptx::type_bits(type) / 8;
  SlotRef d, a, b, position, length;
  if (!source(operands()[1], bytes, &a) || !source(operands()[2], bytes, &b) ||
      !source(operands()[3], 4, &position) || !source(operands()[4], 4, &length) ||
      !destination(operands()[0], bytes, &d)) {
    return false;
  }
  SlotRef mask = temp(bytes), placed = temp(bytes);
  return alu("field." + type, mask, {position, length}) &&
         alu("place." + type, placed, {a, position}) && alu("merge." + type, d, {placed, b, mask});
}

bool Decoder::lop3() {
  if (!count_is(5, 6)) return false;
  SlotRef d, s[3];
  const Operand& lut = operands()[4];
  const Operand& to = operands()[0];
  if (lut.kind != Kind::integer) return unknown();
  for (size_t k = 0; k < 3; ++k) {
    if (!source(operands()[k + 1], 4, &s[k])) return false;
  }
  if (to.kind != Kind::pair) {
    return words().size() == 2 && destination(to, 4, &d) &&
           alu("lop3.b32", d, {s[0], s[1], s[2]}, lut.bits);
  }
  // lop3.BoolOp.b32 d|p, a, b, c, lut, q: p = (result != 0) BoolOp q.
  SlotRef p, q;
  if (!count_is(6) || !destination(to.items[0], 4, &d) || !destination(to.items[1], 1, &p))
    return false;
  if (!predicate_source(operands()[5], &q)) return false;
  SlotRef nonzero = temp(1);
  return alu("lop3.b32", d, {s[0], s[1], s[2]}, lut.bits) && alu("pred.b32", nonzero, {d}) &&
         combine(has("or") ? "or" : "and", p, nonzero, q);
}

bool Decoder::prmt() {
  if (!count_is(4)) return false;
  std::string key = "prmt.b32";
  if (words().size() == 3)
    key = words()[1] == "b32" ? "prmt." + std::string(words()[2]) + ".b32"
                              : "prmt." + std::string(words()[1]) + ".b32";
  SlotRef d, s[3];
  for (size_t k = 0; k < 3; ++k) {
    if (!source(operands()[k + 1], 4, &s[k])) return false;
  }
  return destination(operands()[0], 4, &d) && alu(key, d, {s[0], s[1], s[2]});
}

bool Decoder::mov() {
  if (!count_is(2)) return false;
  std::string_view type = words().back();
  unsigned bits = ptx::type_bits(type);
  if (bits == 0 || bits == 8 || bits > 64) return unknown();
  unsigned bytes = bits == 1 ? 1 : bits / 8;
  const Operand& to = operands()[0];
  const Operand& from = operands()[1];
  if (to.kind == Kind::vector) return unpack(to, from, bytes);
  if (from.kind == Kind::vector) return pack(to, from, bytes);
  SlotRef d, a;
  if (bytes == 1) return destination(to, 1, &d) && predicate_source(from, &a) && move(1, d, a);
  return source(from, bytes, &a, type_letter(type)) && destination(to, bytes, &d) &&
         move(bytes, d, a);
}

bool Decoder::unpack(const Operand& to, const Operand& from, unsigned bytes) {
  size_t n = to.items.size();
  SlotRef a;
  if (!source(from, bytes, &a)) return false;
  unsigned part = n ? bytes / static_cast<unsigned>(n) : 0;
  std::string key = part == 4   ? "extract.32.64"
                    : part == 2 ? (bytes == 8 ? "extract.16.64" : "extract.16.32")
                                : "";
  if (key.empty() || part * n != bytes) return unknown();
  for (size_t k = 0; k < n; ++k) {
    SlotRef d;
    if (to.items[k].kind == Kind::sink) continue;
    if (!destination(to.items[k], part, &d) || !alu(key, d, {a}, k * part * 8)) return false;
  }
  return true;
}

bool Decoder::pack(const Operand& to, const Operand& from, unsigned bytes) {
  size_t n = from.items.size();
  unsigned part = n ? bytes / static_cast<unsigned>(n) : 0;
  if ((n != 2 && n != 4) || part * n != bytes || part < 2) return unknown();
  SlotRef d, s[4];
  for (size_t k = 0; k < n; ++k) {
    if (!source(from.items[k], part, &s[k])) return false;
  }
  if (!destination(to, bytes, &d)) return false;
  if (n == 2) return alu(part == 4 ? "pack.32" : "pack.16", d, {s[0], s[1]});
  SlotRef lo = temp(4), hi = temp(4);
  return alu("pack.16", lo, {s[0], s[1]}) && alu("pack.16", hi, {s[2], s[3]}) &&
         alu("pack.32", d, {lo, hi});
}

}  // namespace softgpu::simt
