// Decoding of loads, stores, atomics, fences and asynchronous copies.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "decoder.hpp"

namespace softgpu::simt {
namespace {

bool is_cache_word(std::string_view w) {
  return w == "ca" || w == "cg" || w == "cs" || w == "lu" || w == "cv" || w == "wb" || w == "wt" ||
         w == "nc" || w == "weak" || w == "cta" || w == "cluster" || w == "gpu" || w == "sys" ||
         w == "noftz" || w == "mmio" || w.starts_with("L1::") || w.starts_with("L2::");
}

}  // namespace

bool Decoder::access_words(Access* a) {
  bool async = words()[0] == "cp";
  for (size_t k = 1; k < words().size(); ++k) {
    std::string_view w = words()[k];
    if (w == "global")
      a->space = MemorySpace::global;
    else if (w == "const")
      a->space = MemorySpace::global;
    else if (w.starts_with("shared"))
      a->space = MemorySpace::shared;
    else if (w == "local")
      a->space = MemorySpace::local;
    else if (w == "param" || w == "param::entry" || w == "param::func")
      a->param = true;
    else if (w == "volatile" || w == "relaxed")
      a->polls = true;
    else if (w == "acquire")
      a->polls = a->acquire = true;
    else if (w == "release")
      a->polls = a->release = true;
    else if (w == "acq_rel")
      a->polls = a->acquire = a->release = true;
    else if (w == "v2" || w == "v4" || w == "v8")
      a->count = static_cast<unsigned>(w[1] - '0');
    else if (ptx::type_bits(w))
      a->type = w;
    else if (is_cache_word(w) || async) {
      if (w == "cv") a->polls = true;
    } else {
      return unknown();
    }
  }
  return true;
}

/// An operand [base + offset]: the slot that holds the base, and in which space it counts.
bool Decoder::address(const Operand& o, Access* a, SlotRef* base, uint32_t* bytes,
                      int64_t* offset) {
  if (o.kind != Kind::address || o.items.empty()) return fail("expected an address");
  const Operand& b = o.items[0];
  *offset = o.offset;
  *bytes = 8;
  const ptx::Variable* v = b.variable;
  if (b.kind == Kind::symbol && !v) v = module_.variable(state_.function->text, b.name);
  bool of_entry = v && std::any_of(state_.function->params.begin(), state_.function->params.end(),
                                   [&](const auto& p) { return p.get() == v; });
  if (a->param) {
    bool entry = state_.function->entry && (v ? of_entry : true);
    a->space = entry ? MemorySpace::param : MemorySpace::local;
  } else if (v && a->space == MemorySpace::generic) {
    // A symbol without a space word is where it was declared.
    switch (v->space) {
      case ptx::Space::shared:
        a->space = MemorySpace::shared;
        break;
      case ptx::Space::local:
        a->space = MemorySpace::local;
        break;
      case ptx::Space::param:
        a->space = state_.function->entry && of_entry ? MemorySpace::param : MemorySpace::local;
        break;
      default:
        a->space = MemorySpace::global;
    }
  }
  if (b.kind == Kind::reg) {
    *bytes = reg_bytes(b.reg);
    if (*bytes < 4) return fail("an address register has 32 or 64 bits");
    *base = reg(b.reg);
    return true;
  }
  if (b.kind == Kind::integer) {
    *base = constant(static_cast<uint64_t>(*offset), 8);
    *offset = 0;
    return true;
  }
  if (!v) return fail("unknown name " + std::string(b.name) + " in an address");
  Operand whole = b;
  whole.offset = *offset;
  if (v->space == ptx::Space::shared && v->linkage == ptx::Linkage::external) {
    whole.offset = 0;  // the base is a special register of 32 bits
    *bytes = 4;
  } else {
    *offset = 0;
  }
  return symbol_source(whole, *bytes, base);
}

bool Decoder::load() {
  Access a;
  SlotRef base;
  uint32_t bytes;
  int64_t offset;
  if (!count_is(2, 3) || !access_words(&a)) return false;
  if (a.type.empty()) return unknown();
  if (!address(operands()[1], &a, &base, &bytes, &offset)) return false;
  const Operand& to = operands()[0];
  std::vector<const Operand*> targets;
  if (to.kind == Kind::vector) {
    for (const Operand& o : to.items) targets.push_back(&o);
  } else {
    targets.push_back(&to);
  }
  if (targets.size() != a.count) return fail("the vector has another length");
  std::vector<SlotRef> slots;
  unsigned size = 0;
  for (const Operand* o : targets) {
    if (o->kind == Kind::sink) {
      slots.push_back(kNoSlot);
      continue;
    }
    if (o->kind != Kind::reg) return fail("expected a register");
    unsigned have = reg_bytes(o->reg);
    if (size && have != size) return unknown("registers of several sizes in one vector");
    size = have;
    slots.push_back(reg(o->reg));
  }
  if (size == 0) size = std::max(2u, ptx::type_bits(a.type) / 8);
  char letter = type_letter(a.type) == 's' ? 's' : 'u';
  std::string key = std::string("ld.") + letter + std::to_string(ptx::type_bits(a.type)) + "." +
                    std::to_string(size);
  MemoryFn fn = find_memory(key);
  if (!fn) return unknown();
  {
    Op& op = emit(OpKind::load);
    op.memory = fn;
    op.space = a.space;
    op.leads = a.polls;
    op.count = static_cast<uint8_t>(a.count);
    op.asize = bytes;
    op.access_bytes = ptx::type_bits(a.type) / 8 * a.count;
    op.a = base;
    op.imm = static_cast<uint64_t>(offset);
    op.d = slots[0];
    op.dsize = static_cast<uint8_t>(size);
    op.target = static_cast<uint32_t>(program_.vectors.size());
  }
  program_.vectors.push_back(std::move(slots));
  if (a.acquire) emit(OpKind::fence);
  return true;
}

bool Decoder::store() {
  if (words().size() > 1 && words()[1] == "async") return unknown();
  Access a;
  SlotRef base;
  uint32_t bytes;
  int64_t offset;
  if (!count_is(2, 3) || !access_words(&a)) return false;
  if (a.type.empty()) return unknown();
  if (!address(operands()[0], &a, &base, &bytes, &offset)) return false;
  const Operand& from = operands()[1];
  std::vector<const Operand*> values;
  if (from.kind == Kind::vector) {
    for (const Operand& o : from.items) values.push_back(&o);
  } else {
    values.push_back(&from);
  }
  if (values.size() != a.count) return fail("the vector has another length");
  unsigned size = 0;
  for (const Operand* o : values) {
    if (o->kind != Kind::reg) continue;
    unsigned have = reg_bytes(o->reg);
    if (size && have != size) return unknown("registers of several sizes in one vector");
    size = have;
  }
  if (size == 0) size = std::max(2u, ptx::type_bits(a.type) / 8);
  std::vector<SlotRef> slots;
  for (const Operand* o : values) {
    SlotRef s;
    if (!source(*o, size, &s, type_letter(a.type))) return false;
    slots.push_back(s);
  }
  MemoryFn fn =
      find_memory("st." + std::to_string(ptx::type_bits(a.type)) + "." + std::to_string(size));
  if (!fn) return unknown();
  if (a.release) emit(OpKind::fence);
  Op& op = emit(OpKind::store);
  op.memory = fn;
  op.space = a.space;
  op.count = static_cast<uint8_t>(a.count);
  op.asize = bytes;
  op.access_bytes = ptx::type_bits(a.type) / 8 * a.count;
  op.a = base;
  op.imm = static_cast<uint64_t>(offset);
  op.b = slots[0];
  op.target = static_cast<uint32_t>(program_.vectors.size());
  program_.vectors.push_back(std::move(slots));
  return true;
}

/// atom and red. The operation is the word that is neither space, order, scope nor type.
bool Decoder::atomic(bool with_result) {
  if (words().size() > 1 && words()[1] == "async") return unknown();
  Access a;
  std::string_view operation;
  Instruction plain = *now_;
  std::erase_if(plain.words, [&](std::string_view w) {
    bool is = w == "add" || w == "and" || w == "or" || w == "xor" || w == "cas" || w == "exch" ||
              w == "inc" || w == "dec" || w == "min" || w == "max";
    if (is) operation = w;
    return is;
  });
  const Instruction* whole = now_;
  now_ = &plain;
  bool known = access_words(&a);
  now_ = whole;
  if (!known || operation.empty() || a.type.empty()) return unknown();
  if (a.space == MemorySpace::local || a.param) return unknown();
  SlotRef base;
  uint32_t bytes;
  int64_t offset;
  size_t first = with_result ? 1 : 0;
  if (!count_is(first + 2, first + 4)) return false;
  if (!address(operands()[first], &a, &base, &bytes, &offset)) return false;
  Op op;
  op.kind = OpKind::atomic;
  op.a = base;
  op.asize = bytes;
  op.imm = static_cast<uint64_t>(offset);
  op.space = a.space;
  if (!atomic_operands(op, a, operation, with_result)) return false;
  if (a.release) emit(OpKind::fence);
  Op& placed = emit(OpKind::atomic);
  op.predicate = placed.predicate;
  op.predicate_negated = placed.predicate_negated;
  op.line = placed.line;
  placed = op;
  if (a.acquire) emit(OpKind::fence);
  return true;
}

bool Decoder::atomic_operands(Op& op, const Access& a, std::string_view operation,
                              bool with_result) {
  std::string type(a.type);
  unsigned bits = ptx::type_bits(type);
  // Names of the handlers: bit operations by b, and addition the same for both signs.
  bool bitwise = operation == "and" || operation == "or" || operation == "xor" ||
                 operation == "exch" || operation == "cas";
  if (bitwise) type = "b" + std::to_string(bits);
  if (operation == "add" && type[0] == 's') type[0] = 'u';
  std::string key =
      (a.space == MemorySpace::shared ? "atoms." : "atom.") + std::string(operation) + "." + type;
  op.memory = find_memory(key);
  if (!op.memory) return unknown();
  unsigned bytes = bits / 8;
  size_t first = with_result ? 1 : 0;
  op.count = static_cast<uint8_t>(a.count);
  op.leads = operation == "cas" || operation == "exch";
  op.dsize = static_cast<uint8_t>(bytes);
  std::vector<SlotRef> slots(8, kNoSlot);
  const Operand& value = operands()[first + 1];
  if (a.count == 1) {
    if (!source(value, bytes, &op.b, type_letter(a.type))) return false;
    if (operation == "cas" && !source(operands()[first + 2], bytes, &op.c, type_letter(a.type)))
      return false;
    if (with_result && operands()[0].kind != Kind::sink &&
        !destination(operands()[0], bytes, &slots[0])) {
      return false;
    }
  } else {
    if (value.kind != Kind::vector || value.items.size() != a.count || a.count > 4)
      return unknown();
    for (size_t k = 0; k < a.count; ++k) {
      if (!source(value.items[k], bytes, &slots[4 + k], type_letter(a.type))) return false;
      if (with_result && operands()[0].kind == Kind::vector &&
          !destination(operands()[0].items[k], bytes, &slots[k])) {
        return false;
      }
    }
  }
  op.d = slots[0];
  op.target = static_cast<uint32_t>(program_.vectors.size());
  program_.vectors.push_back(std::move(slots));
  return true;
}

bool Decoder::fence() {
  emit(OpKind::fence);
  return true;
}

/// cp.async: the copy is made at once, so that waiting for it is nothing.
bool Decoder::async_copy() {
  if (!has("async") || has("bulk") || has("reduce")) return unknown();
  if (has("commit_group") || has("wait_group") || has("wait_all")) return true;
  if (has("mbarrier")) {  // cp.async.mbarrier.arrive{.noinc}: all copies are complete: arrive
    SlotRef base;
    uint32_t bytes;
    int64_t offset;
    Access a;
    a.space = has("shared") || has("shared::cta") ? MemorySpace::shared : MemorySpace::generic;
    if (!address(operands()[0], &a, &base, &bytes, &offset)) return false;
    if (!has("noinc")) return true;  // it would raise the pending count and lower it again
    Op& op = emit(OpKind::mbarrier);
    op.variant = static_cast<uint8_t>(MbarrierKind::arrive);
    op.a = base;
    op.asize = bytes;
    op.imm = static_cast<uint64_t>(offset);
    op.space = a.space;
    op.b = constant(1, 4);
    return true;
  }
  if (!count_is(3, 5) || operands()[2].kind != Kind::integer) return unknown();
  uint64_t size = operands()[2].bits;
  if (size != 4 && size != 8 && size != 16) return unknown();
  Access to, from;
  to.space = MemorySpace::shared;
  from.space = MemorySpace::global;
  SlotRef to_base, from_base, limit = kNoSlot;
  uint32_t to_bytes, from_bytes;
  int64_t to_offset, from_offset;
  if (!address(operands()[0], &to, &to_base, &to_bytes, &to_offset) ||
      !address(operands()[1], &from, &from_base, &from_bytes, &from_offset)) {
    return false;
  }
  if (operands().size() > 3 && !has("L2::cache_hint")) {
    const Operand& o = operands()[3];
    if (o.kind == Kind::reg && reg_bytes(o.reg) == 1) {  // ignore-src: zeros instead
      SlotRef p;
      if (!predicate_source(o, &p)) return false;
      limit = temp(4);
      if (!alu("selp.b32", limit, {constant(0, 4), constant(size, 4), p})) return false;
    } else if (!source(o, 4, &limit)) {
      return false;
    }
  }
  if (to_offset) {
    SlotRef sum = temp(to_bytes);
    if (!alu(to_bytes == 8 ? "add.u64" : "add.u32", sum,
             {to_base, constant(static_cast<uint64_t>(to_offset), to_bytes)})) {
      return false;
    }
    to_base = sum;
  }
  Op& op = emit(OpKind::async_copy);
  op.a = from_base;
  op.asize = from_bytes;
  op.imm = static_cast<uint64_t>(from_offset);
  op.b = to_base;
  op.dsize = static_cast<uint8_t>(to_bytes);
  op.c = limit;
  op.count = static_cast<uint8_t>(size);
  return true;
}

bool Decoder::mbarrier() {
  if (words().size() < 2) return unknown();
  std::string_view what = words()[1];
  MbarrierKind kind;
  bool tests = what == "test_wait" || what == "try_wait";
  if (what == "init")
    kind = MbarrierKind::init;
  else if (what == "inval")
    kind = MbarrierKind::inval;
  else if (what == "arrive")
    kind = MbarrierKind::arrive;
  else if (what == "arrive_drop")
    kind = MbarrierKind::arrive_drop;
  else if (tests)
    kind = MbarrierKind::test_wait;
  else
    return unknown();
  if (has("expect_tx")) return unknown("transactions");
  if (has("shared::cluster")) return unknown();
  Access a;
  a.space = has("shared") || has("shared::cta") ? MemorySpace::shared : MemorySpace::generic;
  SlotRef d = kNoSlot, base, b = kNoSlot;
  uint32_t bytes;
  int64_t offset;
  bool arrives = kind == MbarrierKind::arrive || kind == MbarrierKind::arrive_drop;
  size_t at = arrives || tests ? 1 : 0;
  if (operands().size() <= at) return fail("wrong number of operands");
  if (arrives && !destination(operands()[0], 8, &d)) return false;
  if (tests && !destination(operands()[0], 1, &d)) return false;
  if (!address(operands()[at], &a, &base, &bytes, &offset)) return false;
  bool parity = has("parity");
  if (kind == MbarrierKind::init || arrives) {
    b = constant(1, 4);
    if (operands().size() > at + 1 && !source(operands()[at + 1], 4, &b)) return false;
  } else if (tests) {
    if (!count_is(3, 4) || !source(operands()[2], parity ? 4 : 8, &b)) return false;
  }
  Op& op = emit(OpKind::mbarrier);
  op.variant = static_cast<uint8_t>(kind);
  op.leads = parity;
  op.d = d;
  op.dsize = tests ? 1 : 8;
  op.a = base;
  op.asize = bytes;
  op.imm = static_cast<uint64_t>(offset);
  op.space = a.space;
  op.b = b;
  return true;
}

bool Decoder::map_shared() {
  if (words()[0] == "getctarank") {
    SlotRef d;
    return count_is(2) && destination(operands()[0], 4, &d) && move(4, d, constant(0, 4));
  }
  // mapa: the only block of a cluster is this one.
  unsigned bytes = ptx::type_bits(words().back()) / 8;
  SlotRef d, a;
  if (bytes < 4) return unknown();
  return count_is(3) && source(operands()[1], bytes, &a) && destination(operands()[0], bytes, &d) &&
         move(bytes, d, a);
}

}  // namespace softgpu::simt
