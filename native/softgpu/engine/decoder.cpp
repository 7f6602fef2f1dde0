// Functions, operands and emission: the frame of the decoder.
// SPDX-License-Identifier: Apache-2.0
#include "decoder.hpp"

#include <algorithm>
#include <bit>

namespace softgpu::simt {

using ptx::Space;
using ptx::Variable;

char type_letter(std::string_view type) {
  if (type == "pred") return 'p';
  if (type.starts_with("bf") || type.starts_with("f") || type.starts_with("tf")) return 'f';
  return type.empty() ? 'b' : type[0];
}

bool Decoder::fail(std::string reason) {
  if (!error_.empty()) return false;
  if (now_) {
    error_ = "line " + std::to_string(now_->line) + ": " + std::string(now_->text) + ": " + reason;
    std::replace(error_.begin(), error_.end(), '\n', ' ');
  } else {
    error_ = std::move(reason);
  }
  return false;
}

bool Decoder::unknown(std::string_view why) {
  return fail("this form is not supported by the software GPU" +
              (why.empty() ? std::string() : ": " + std::string(why)));
}

bool Decoder::has(std::string_view word) const {
  return std::find(words().begin() + 1, words().end(), word) != words().end();
}

bool Decoder::count_is(size_t least, size_t most) {
  size_t n = operands().size();
  return (n >= least && n <= std::max(least, most)) || fail("wrong number of operands");
}

int Decoder::function_index(const ptx::Function& f) {
  auto [it, fresh] = indices_.emplace(&f, static_cast<int>(queue_.size()));
  if (fresh) {
    queue_.push_back(&f);
    callees_.emplace_back();
  }
  return it->second;
}

bool Decoder::decode(const ptx::Function& entry) {
  function_index(entry);
  for (size_t k = 0; k < queue_.size(); ++k) {
    if (!function(*queue_[k])) return false;
    if (indirect_ && k + 1 == queue_.size()) {
      // Whatever has its address taken anywhere may be called.
      for (const auto* f : module_.address_taken()) function_index(*f);
    }
  }
  program_.uses_calls = queue_.size() > 1 || indirect_;
  if (dynamic_shared_) program_.shared_bytes = (program_.shared_bytes + 15) / 16 * 16;
  call_depths();
  share_patterns(&program_);
  return true;
}

/// The local memory that the deepest chain of calls needs.
void Decoder::call_depths() {
  constexpr uint32_t kUnknownDepth = 64 << 10;
  size_t n = program_.functions.size();
  std::vector<uint32_t> depth(n, 0);
  std::vector<uint8_t> state(n, 0);
  bool cycle = indirect_;
  auto visit = [&](auto& self, size_t f) -> uint32_t {
    if (state[f] == 2) return depth[f];
    if (state[f] == 1) {
      cycle = true;
      return 0;
    }
    state[f] = 1;
    uint32_t deepest = 0;
    for (int callee : callees_[f])
      deepest = std::max(deepest, self(self, static_cast<size_t>(callee)));
    state[f] = 2;
    return depth[f] = program_.functions[f].local_bytes + deepest;
  };
  program_.local_bytes = visit(visit, 0);
  program_.recursive = cycle;
  if (cycle) program_.local_bytes += kUnknownDepth;
}

bool Decoder::layout_frame() {
  FunctionCode& code = program_.functions[static_cast<size_t>(state_.index)];
  auto place = [&](Variable& v) {
    uint32_t align = std::max<uint32_t>(v.align, 1);
    uint32_t at = (state_.local_bytes + align - 1) / align * align;
    v.address = at;
    state_.local_bytes = at + static_cast<uint32_t>(std::max<uint64_t>(v.bytes, 1));
    return at;
  };
  const ptx::Function& f = *state_.function;
  if (!f.entry) {
    for (const auto& v : f.results) {
      code.results.push_back(place(*v));
      code.result_bytes.push_back(static_cast<uint32_t>(v->bytes));
    }
    for (const auto& v : f.params) {
      code.params.push_back(place(*v));
      code.param_bytes.push_back(static_cast<uint32_t>(v->bytes));
    }
    code.return_pc = new_slot(4);
    code.return_frame = new_slot(4);
    code.return_local = new_slot(4);
    code.return_site = new_slot(4);
  }
  for (const auto& v : state_.body.variables) {
    if (v->bytes > (16u << 20)) return fail(std::string(v->name) + " is too large");
    if (v->space == Space::local || v->space == Space::param) place(*v);
    if (v->space == Space::shared && v->linkage != ptx::Linkage::external) shared_offset(*v);
  }
  // Frames of local memory stay aligned for 16-byte accesses.
  state_.local_bytes = (state_.local_bytes + 15) / 16 * 16;
  return true;
}

bool Decoder::function(const ptx::Function& f) {
  state_ = State{};
  now_ = nullptr;
  state_.function = &f;
  state_.index = indices_[&f];
  if (auto e = ptx::parse_body(f, &state_.body)) {
    return fail("line " + std::to_string(e.line) + ": " + e.message);
  }
  program_.functions.emplace_back();
  program_.functions.back().name = f.name;
  program_.functions.back().number = f.number;
  program_.functions.back().entry = static_cast<uint32_t>(program_.ops.size());
  if (!layout_frame()) return false;
  state_.slots.assign(state_.body.registers.size(), kNoSlot);
  state_.label_pc.assign(static_cast<size_t>(state_.body.label_count), 0);
  registers_ = std::max(registers_, static_cast<uint32_t>(state_.body.registers.size()));
  for (const Instruction& i : state_.body.code) {
    now_ = &i;
    if (i.predicate >= 0 && reg_bytes(i.predicate) != 1) return fail("the guard is no predicate");
    for (auto& [bytes, used] : state_.temps_used) used = 0;
    if (i.label >= 0) {
      state_.label_pc[static_cast<size_t>(i.label)] = static_cast<uint32_t>(program_.ops.size());
      emit(OpKind::leader);
    } else if (!instruction(i)) {
      return false;
    }
  }
  // Falling off the end is a return.
  now_ = nullptr;
  emit(f.entry ? OpKind::exit : OpKind::ret).target = static_cast<uint32_t>(state_.index);
  for (auto [op, label] : state_.fixups) {
    program_.ops[op].target = state_.label_pc[static_cast<size_t>(label)];
  }
  for (auto [table, labels] : state_.table_fixups) {
    for (int label : state_.tables[static_cast<size_t>(labels)]) {
      program_.jump_tables[table].push_back(state_.label_pc[static_cast<size_t>(label)]);
    }
  }
  FunctionCode& code = program_.functions[static_cast<size_t>(state_.index)];
  code.local_bytes = state_.local_bytes;
  share_slots(&program_, code.entry, state_.sizes);
  return true;
}

Op& Decoder::emit(OpKind kind) {
  Op op;
  op.kind = kind;
  op.line = now_ ? now_->line : 0;
  if (now_ && now_->predicate >= 0) {
    op.predicate = reg(now_->predicate);
    op.predicate_negated = now_->predicate_negated;
  }
  program_.ops.push_back(op);
  return program_.ops.back();
}

bool Decoder::alu(std::string_view key, SlotRef d, std::initializer_list<SlotRef> sources,
                  uint64_t imm, uint8_t mode) {
  const AluEntry* e = find_alu(key);
  if (!e) return unknown("no handler " + std::string(key));
  Op& op = emit(mode ? OpKind::alu_mode : OpKind::alu);
  op.alu = e->fn;
  op.dsize = e->dsize;
  op.mode = mode;
  op.imm = imm;
  op.d = d;
  const SlotRef* s = sources.begin();
  op.a = sources.size() > 0 ? s[0] : d;
  op.b = sources.size() > 1 ? s[1] : op.a;
  op.c = sources.size() > 2 ? s[2] : op.a;
  return true;
}

bool Decoder::move(unsigned bytes, SlotRef d, SlotRef a) {
  if (d == a) return true;
  return alu(bytes == 1   ? "mov.pred"
             : bytes == 2 ? "mov.b16"
             : bytes == 4 ? "mov.b32"
                          : "mov.b64",
             d, {a});
}

SlotRef Decoder::constant(uint64_t bits, unsigned bytes) {
  if (bytes < 8) bits &= (uint64_t{1} << (8 * bytes)) - 1;
  auto [it, fresh] = constants_.emplace(std::pair{bits, bytes}, kNoSlot);
  if (fresh) {
    it->second = slot(kConstants, program_.constant_bytes);
    program_.constants.push_back({program_.constant_bytes, static_cast<uint8_t>(bytes), bits});
    program_.constant_bytes += bytes;
  }
  return it->second;
}

SlotRef Decoder::new_slot(unsigned bytes) {
  SlotRef s = slot(kRegisters, state_.frame_bytes);
  state_.frame_bytes += bytes;
  state_.sizes[s] = bytes;
  return s;
}

SlotRef Decoder::temp(unsigned bytes) {
  auto& pool = state_.temps[bytes];
  size_t& used = state_.temps_used[bytes];
  if (used == pool.size()) {
    pool.push_back(new_slot(bytes));
  }
  return pool[used++];
}

unsigned Decoder::reg_bytes(int number) const {
  unsigned bits = state_.body.registers[static_cast<size_t>(number)].bits;
  return bits == 1 ? 1 : bits <= 16 ? 2 : bits / 8;
}

SlotRef Decoder::reg(int number) {
  SlotRef& s = state_.slots[static_cast<size_t>(number)];
  if (s == kNoSlot) {
    s = new_slot(reg_bytes(number));
  }
  return s;
}

bool Decoder::immediate(const Operand& o, unsigned bytes, char type, uint64_t* bits) {
  if (o.kind == Kind::integer) {
    if (type == 'f' && bytes >= 4) {
      double d = static_cast<double>(static_cast<int64_t>(o.bits));
      *bits =
          bytes == 8 ? std::bit_cast<uint64_t>(d) : std::bit_cast<uint32_t>(static_cast<float>(d));
    } else {
      *bits = o.bits;
    }
    return true;
  }
  if (o.kind == Kind::f32) {
    *bits = bytes == 8 ? std::bit_cast<uint64_t>(static_cast<double>(
                             std::bit_cast<float>(static_cast<uint32_t>(o.bits))))
                       : o.bits;
    return true;
  }
  if (o.kind == Kind::f64) {
    *bits = bytes == 4 ? std::bit_cast<uint32_t>(static_cast<float>(std::bit_cast<double>(o.bits)))
                       : o.bits;
    return true;
  }
  return false;
}

bool Decoder::source(const Operand& o, unsigned bytes, SlotRef* out, char type) {
  uint64_t bits;
  if (o.kind == Kind::reg) {
    if (bytes == 1 && o.negated) return predicate_source(o, out);
    if (reg_bytes(o.reg) != bytes) return fail("an operand has the wrong size");
    *out = reg(o.reg);
    return true;
  }
  if (immediate(o, bytes, type, &bits)) {
    *out = constant(bits, bytes);
    return true;
  }
  if (o.kind == Kind::special) return special_source(o, bytes, out);
  if (o.kind == Kind::symbol) return symbol_source(o, bytes, out);
  return fail("unexpected kind of operand");
}

bool Decoder::predicate_source(const Operand& o, SlotRef* out) {
  if (o.kind == Kind::integer) {
    *out = constant(o.bits != 0, 1);
    return true;
  }
  if (o.kind != Kind::reg || reg_bytes(o.reg) != 1) return fail("expected a predicate");
  *out = reg(o.reg);
  if (!o.negated) return true;
  SlotRef t = temp(1);
  SlotRef from = *out;
  *out = t;
  return alu("not.pred", t, {from});
}

bool Decoder::special_source(const Operand& o, unsigned bytes, SlotRef* out) {
  static const std::unordered_map<std::string_view, Special> names = {
      {"%tid.x", Special::tid_x},
      {"%tid.y", Special::tid_y},
      {"%tid.z", Special::tid_z},
      {"%ntid.x", Special::ntid_x},
      {"%ntid.y", Special::ntid_y},
      {"%ntid.z", Special::ntid_z},
      {"%ctaid.x", Special::ctaid_x},
      {"%ctaid.y", Special::ctaid_y},
      {"%ctaid.z", Special::ctaid_z},
      {"%nctaid.x", Special::nctaid_x},
      {"%nctaid.y", Special::nctaid_y},
      {"%nctaid.z", Special::nctaid_z},
      {"%laneid", Special::laneid},
      {"%warpid", Special::warpid},
      {"%nwarpid", Special::nwarpid},
      {"%lanemask_eq", Special::lanemask_eq},
      {"%lanemask_le", Special::lanemask_le},
      {"%lanemask_lt", Special::lanemask_lt},
      {"%lanemask_ge", Special::lanemask_ge},
      {"%lanemask_gt", Special::lanemask_gt},
      {"%smid", Special::smid},
      {"%nsmid", Special::nsmid},
      {"%gridid", Special::gridid},
      {"%envreg0", Special::zero},
      {"%envreg1", Special::envreg1},
      {"%envreg2", Special::envreg2},
      {"%total_smem_size", Special::total_smem},
      {"%dynamic_smem_size", Special::dynamic_smem},
      {"%aggr_smem_size", Special::total_smem},
      {"%reserved_smem_offset_begin", Special::zero},
      // A cluster is one block.
      {"%clusterid.x", Special::ctaid_x},
      {"%clusterid.y", Special::ctaid_y},
      {"%clusterid.z", Special::ctaid_z},
      {"%nclusterid.x", Special::nctaid_x},
      {"%nclusterid.y", Special::nctaid_y},
      {"%nclusterid.z", Special::nctaid_z},
      {"%cluster_ctaid.x", Special::zero},
      {"%cluster_ctaid.y", Special::zero},
      {"%cluster_ctaid.z", Special::zero},
      {"%cluster_nctaid.x", Special::one},
      {"%cluster_nctaid.y", Special::one},
      {"%cluster_nctaid.z", Special::one},
      {"%cluster_ctarank", Special::zero},
      {"%cluster_nctarank", Special::one}};
  auto it = names.find(o.name);
  if (it != names.end()) {
    SlotRef s = special(it->second);
    if (bytes == 4) {
      *out = s;
      return true;
    }
    if (bytes != 8 && bytes != 2) return fail("a special register has another size");
    *out = temp(bytes);
    return alu(bytes == 8 ? "ext.64.u32" : "ext.16.u32", *out, {s});
  }
  bool clock = o.name.starts_with("%clock");
  if (clock || o.name.starts_with("%globaltimer")) {
    *out = temp(bytes);
    SlotRef d = *out;
    Op& op = emit(OpKind::clock);
    op.d = d;
    op.dsize = static_cast<uint8_t>(bytes);
    op.variant = static_cast<uint8_t>(clock ? ClockKind::cycles : ClockKind::nanoseconds);
    op.imm = o.name.ends_with("_hi") ? 32 : 0;
    return true;
  }
  if (o.name == "%is_explicit_cluster" && bytes == 1) {
    *out = constant(0, 1);
    return true;
  }
  return fail("unknown special register or name " + std::string(o.name));
}

uint32_t Decoder::shared_offset(const Variable& v) {
  auto [it, fresh] = shared_.emplace(&v, 0);
  if (fresh) {
    uint32_t align = std::max<uint32_t>(v.align, 1);
    it->second = (program_.shared_bytes + align - 1) / align * align;
    program_.shared_bytes = it->second + static_cast<uint32_t>(v.bytes);
  }
  return it->second;
}

bool Decoder::frame_offset(const Variable& v, int64_t offset, unsigned bytes, SlotRef* out) {
  uint64_t at = v.address + static_cast<uint64_t>(offset);
  if (state_.index == 0) {  // the entry's frame is always the first
    *out = constant(at, bytes);
    return true;
  }
  *out = temp(bytes);
  SlotRef d = *out;
  Op& op = emit(OpKind::frame_address);
  op.d = d;
  op.dsize = static_cast<uint8_t>(bytes);
  op.imm = at;
  return true;
}

bool Decoder::symbol_source(const Operand& o, unsigned bytes, SlotRef* out) {
  const Variable* v = o.variable;
  if (!v) v = module_.variable(state_.function->text, o.name);
  if (!v) {
    if (const ptx::Function* f = module_.function(state_.function->text, o.name)) {
      function_index(*f);
      *out = constant(kFunctionBase + uint64_t{f->number} * kFunctionStride, bytes);
      return true;
    }
    return fail("unknown name " + std::string(o.name));
  }
  switch (v->space) {
    case Space::global:
    case Space::constant:
      *out = constant(v->address + static_cast<uint64_t>(o.offset), bytes);
      return true;
    case Space::shared:
      if (v->linkage == ptx::Linkage::external) {
        dynamic_shared_ = true;
        // Dynamic shared memory begins where the static ends, known only after all is decoded.
        SlotRef base = special(Special::dynamic_base);
        *out = base;
        if (bytes == 4 && o.offset == 0) return true;
        if (bytes == 8) {
          SlotRef wide = temp(8);
          if (!alu("ext.64.u32", wide, {base})) return false;
          *out = wide;
          if (o.offset == 0) return true;
        }
        SlotRef sum = temp(bytes);
        SlotRef from = *out;
        *out = sum;
        return alu(bytes == 8 ? "add.u64" : "add.u32", sum,
                   {from, constant(static_cast<uint64_t>(o.offset), bytes)});
      }
      *out = constant(shared_offset(*v) + static_cast<uint64_t>(o.offset), bytes);
      return true;
    case Space::param:
      if (state_.function->entry && v != nullptr &&
          std::any_of(state_.function->params.begin(), state_.function->params.end(),
                      [&](const auto& p) { return p.get() == v; })) {
        *out = constant(v->address + static_cast<uint64_t>(o.offset), bytes);
        return true;
      }
      return frame_offset(*v, o.offset, bytes, out);
    case Space::local:
      return frame_offset(*v, o.offset, bytes, out);
    default:
      return fail("unexpected kind of variable");
  }
}

bool Decoder::destination(const Operand& o, unsigned bytes, SlotRef* out) {
  if (o.kind == Kind::sink) {
    *out = temp(bytes);
    return true;
  }
  if (o.kind != Kind::reg) return fail("expected a register");
  if (reg_bytes(o.reg) != bytes) return fail("the destination has the wrong size");
  *out = reg(o.reg);
  return true;
}

bool Decoder::instruction(const Instruction& i) {
  using Method = bool (Decoder::*)();
  static const std::unordered_map<std::string_view, Method> methods = {
      {"setp", &Decoder::setp},
      {"set", &Decoder::set},
      {"selp", &Decoder::selp},
      {"slct", &Decoder::slct},
      {"bfi", &Decoder::bfi},
      {"lop3", &Decoder::lop3},
      {"prmt", &Decoder::prmt},
      {"mov", &Decoder::mov},
      {"cvt", &Decoder::cvt},
      {"cvta", &Decoder::cvta},
      {"isspacep", &Decoder::isspacep},
      {"ld", &Decoder::load},
      {"ldu", &Decoder::load},
      {"st", &Decoder::store},
      {"membar", &Decoder::fence},
      {"fence", &Decoder::fence},
      {"cp", &Decoder::async_copy},
      {"mbarrier", &Decoder::mbarrier},
      {"bra", &Decoder::branch},
      {"brx", &Decoder::branch_table},
      {"call", &Decoder::call},
      {"bar", &Decoder::barrier},
      {"barrier", &Decoder::barrier},
      {"shfl", &Decoder::shuffle},
      {"vote", &Decoder::vote},
      {"match", &Decoder::match},
      {"redux", &Decoder::redux},
      {"elect", &Decoder::elect},
      {"alloca", &Decoder::stack},
      {"stacksave", &Decoder::stack},
      {"stackrestore", &Decoder::stack},
      {"tex", &Decoder::texture},
      {"txq", &Decoder::texture_query},
      {"suq", &Decoder::texture_query},
      {"suld", &Decoder::surface},
      {"sust", &Decoder::surface},
      {"mapa", &Decoder::map_shared},
      {"getctarank", &Decoder::map_shared}};
  std::string_view op = i.words[0];
  if (auto it = methods.find(op); it != methods.end()) return (this->*it->second)();
  if (op == "atom" || op == "red") return atomic(op == "atom");
  if (op == "exit" || (op == "ret" && state_.function->entry)) {
    emit(OpKind::exit);
    return true;
  }
  if (op == "ret") {
    emit(OpKind::ret).target = static_cast<uint32_t>(state_.index);
    return true;
  }
  if (op == "trap") {
    emit(OpKind::trap);
    return true;
  }
  // Hints: they may be ignored by their definition.
  if (op == "prefetch" || op == "prefetchu" || op == "griddepcontrol" || op == "discard" ||
      op == "applypriority" || op == "setmaxnreg" || op == "brkpt" || op == "pmevent") {
    return true;
  }
  if (op == "createpolicy") {
    SlotRef d;
    return count_is(1, 4) && destination(operands()[0], 8, &d) && move(8, d, constant(0, 8));
  }
  if (op == "nanosleep") {
    SlotRef a;
    if (!count_is(1) || !source(operands()[0], 4, &a)) return false;
    emit(OpKind::sleep).a = a;
    return true;
  }
  if (op == "activemask") {
    SlotRef d;
    if (!count_is(1) || !destination(operands()[0], 4, &d)) return false;
    Op& mask = emit(OpKind::active_mask);
    mask.d = d;
    mask.dsize = 4;
    return true;
  }
  return arithmetic();
}

}  // namespace softgpu::simt
