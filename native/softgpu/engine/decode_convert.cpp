// Decoding of conversions between types and between state spaces.
// SPDX-License-Identifier: Apache-2.0
#include "decoder.hpp"

namespace softgpu::simt {
namespace {

unsigned slot_bytes(std::string_view type) {
  unsigned bits = ptx::type_bits(type);
  return bits <= 16 ? 2 : bits / 8;
}

}  // namespace

/// A source of cvt: registers may be wider than the type says, and 8 bits live in 16.
bool Decoder::narrow(const Operand& o, std::string_view type, SlotRef* out) {
  unsigned want = slot_bytes(type);
  if (o.kind != Kind::reg) return source(o, want, out, type_letter(type));
  unsigned have = reg_bytes(o.reg);
  if (have == want) return source(o, want, out);
  if (have < want) return fail("an operand has the wrong size");
  SlotRef t = temp(want);
  *out = t;
  return alu(want == 2 ? (have == 8 ? "ext.16.u64" : "ext.16.u32") : "ext.32.u64", t, {reg(o.reg)});
}

/// Moves a result of the given type into a register that may be wider: extended by the type's sign.
bool Decoder::widen(SlotRef from, std::string_view type, const Operand& to) {
  unsigned have = slot_bytes(type);
  if (to.kind == Kind::sink) return true;
  if (to.kind != Kind::reg) return fail("expected a register");
  unsigned want = reg_bytes(to.reg);
  if (want < have) return fail("the destination has the wrong size");
  char letter = type_letter(type) == 's' ? 's' : 'u';
  std::string key =
      "ext." + std::to_string(want * 8) + "." + letter + std::to_string(ptx::type_bits(type));
  return alu(key, reg(to.reg), {from});
}

bool Decoder::cvt_integer(std::string_view to, std::string_view from, bool saturate) {
  SlotRef a;
  char letter = type_letter(from) == 's' ? 's' : 'u';
  std::string source_type = letter + std::to_string(ptx::type_bits(from));
  if (!narrow(operands()[1], from, &a)) return false;
  if (saturate) {
    SlotRef wide = temp(8);
    std::string clamp = "clamp." + std::string(to) + "." + letter;
    if (!alu("ext.64." + source_type, wide, {a}) || !alu(clamp, wide, {wide})) return false;
    // Unsigned 64 bits as they are: only a negative or a too large value changes.
    SlotRef t = temp(slot_bytes(to));
    return alu("ext." + std::to_string(slot_bytes(to) * 8) + ".u64", t, {wide}) &&
           widen(t, to, operands()[0]);
  }
  SlotRef t = temp(slot_bytes(to));
  unsigned bits = ptx::type_bits(to);
  const Operand& d = operands()[0];
  // The common case is one operation: straight into a register of the type's size.
  if (d.kind == Kind::reg && reg_bytes(d.reg) == slot_bytes(to) && bits >= 16) {
    return alu("ext." + std::to_string(bits) + "." + source_type, reg(d.reg), {a});
  }
  return alu("ext." + std::to_string(slot_bytes(to) * 8) + "." + source_type, t, {a}) &&
         widen(t, to, d);
}

bool Decoder::cvt() {
  if (!count_is(2, 3) || words().size() < 3) return unknown();
  std::string_view from = words().back(), to = words()[words().size() - 2];
  bool ftz = false, saturate = false;
  std::string variant;  // relu, satfinite
  std::string_view round;
  for (size_t k = 1; k + 2 < words().size(); ++k) {
    std::string_view w = words()[k];
    if (w == "ftz")
      ftz = true;
    else if (w == "sat")
      saturate = true;
    else if (w == "relu" || w == "satfinite")
      variant += std::string(w) + ".";
    else if (w == "rn" || w == "rz" || w == "rm" || w == "rp" || w == "rna" || w == "rni" ||
             w == "rzi" || w == "rmi" || w == "rpi")
      round = w;
    else
      return unknown();
  }
  if (!ptx::type_bits(from) || !ptx::type_bits(to)) return unknown();
  bool float_to = type_letter(to) == 'f' || to[0] == 'e',
       float_from = type_letter(from) == 'f' || from[0] == 'e';
  if (!float_to && !float_from) return cvt_integer(to, from, saturate);
  uint8_t mode = ftz ? kFlush : 0;
  std::string key;
  if (float_to && float_from && to == from) {  // to an integral value, or only .sat
    key = round == "rni"   ? "rint."
          : round == "rzi" ? "trunc."
          : round == "rmi" ? "floor."
          : round == "rpi" ? "ceil."
                           : "";
    key = key.empty() ? (ftz        ? "flush."
                         : saturate ? "sat."
                                    : "") +
                            std::string(to)
                      : key + std::string(to);
    if (key == to) key = to == "f64" ? "mov.b64" : to == "f32" ? "mov.b32" : "mov.b16";
  } else if (float_from && !float_to) {
    key = "cvt." + std::string(round) + "." + std::string(to) + "." + std::string(from);
  } else {
    key = "cvt.";
    bool wide = to == "f32" || to == "f64";
    if (round == "rna") key += "rna.";
    if (wide) {  // the FPU rounds
      if (round == "rz") mode |= kRoundZero;
      if (round == "rm") mode |= kRoundDown;
      if (round == "rp") mode |= kRoundUp;
    } else if (round == "rz" || round == "rm" || round == "rp") {
      key += std::string(round) + ".";
      mode = 0;
    }
    key += variant + std::string(to) + "." + std::string(from);
  }
  const AluEntry* e = find_alu(key);
  if (!e) return unknown();
  SlotRef a, b = kNoSlot;
  if (!narrow(operands()[1], from, &a)) return false;
  bool two = e->sizes[1] != 0;
  if (two != (operands().size() == 3)) return fail("wrong number of operands");
  if (two && !narrow(operands()[2], from, &b)) return false;
  SlotRef t = temp(e->dsize);
  const Operand& d = operands()[0];
  bool direct = d.kind == Kind::reg && reg_bytes(d.reg) == e->dsize && ptx::type_bits(to) >= 16;
  if (direct) t = reg(d.reg);
  if (!alu(key, t, {a, two ? b : a}, 0, mode)) return false;
  bool narrow_float = to == "f16" || to == "bf16" || to == "f32" || to == "f64";
  if (saturate && narrow_float && !key.starts_with("sat.") &&
      !alu("sat." + std::string(to), t, {t})) {
    return false;
  }
  if (ftz && float_to && to == "f32" && !key.starts_with("flush.") && !alu("flush.f32", t, {t})) {
    return false;
  }
  return direct || widen(t, to, d);
}

bool Decoder::cvta() {
  if (!count_is(2)) return false;
  if (words().back() != "u64") return unknown("only 64-bit addresses");
  SlotRef d, a;
  if (!source(operands()[1], 8, &a) || !destination(operands()[0], 8, &d)) return false;
  bool to = words()[1] == "to";
  std::string_view space = words()[to ? 2 : 1];
  if (space == "global" || space == "const") return move(8, d, a);
  MemorySpace where;
  if (space.starts_with("shared"))
    where = MemorySpace::shared;
  else if (space == "local")
    where = MemorySpace::local;
  else if (space == "param" || space == "param::entry") {
    where = state_.function->entry ? MemorySpace::param : MemorySpace::local;
  } else {
    return unknown();
  }
  Op& op = emit(to ? OpKind::space_offset : OpKind::generic_address);
  op.d = d;
  op.a = a;
  op.dsize = 8;
  op.space = where;
  return true;
}

bool Decoder::isspacep() {
  SlotRef d, a;
  if (!count_is(2) || !destination(operands()[0], 1, &d)) return false;
  if (!source(operands()[1], 8, &a)) return false;
  std::string_view space = words()[1];
  Op& op = emit(OpKind::is_space);
  op.d = d;
  op.a = a;
  op.dsize = 1;
  op.space = space.starts_with("shared")  ? MemorySpace::shared
             : space == "local"           ? MemorySpace::local
             : space.starts_with("param") ? MemorySpace::param
                                          : MemorySpace::global;
  op.variant = space == "const";
  return true;
}

}  // namespace softgpu::simt
