// Decoding of branches, calls, barriers and warp-wide instructions.
// SPDX-License-Identifier: Apache-2.0
#include "decoder.hpp"

namespace softgpu::simt {

bool Decoder::branch() {
  if (!count_is(1) || operands()[0].kind != Kind::label) return unknown();
  emit(OpKind::branch);
  state_.fixups.push_back({static_cast<uint32_t>(program_.ops.size() - 1), operands()[0].reg});
  return true;
}

bool Decoder::branch_table() {
  if (!count_is(2) || operands()[1].kind != Kind::symbol) return unknown();
  auto table = state_.body.branch_targets.find(operands()[1].name);
  if (table == state_.body.branch_targets.end()) return fail("unknown table of labels");
  SlotRef index;
  if (!source(operands()[0], 4, &index)) return false;
  Op& op = emit(OpKind::branch_table);
  op.a = index;
  op.target = static_cast<uint32_t>(program_.jump_tables.size());
  program_.jump_tables.emplace_back();
  state_.table_fixups.push_back({op.target, static_cast<int>(state_.tables.size())});
  state_.tables.push_back(table->second);
  return true;
}

bool Decoder::call_arguments(const Operand* results, const Operand* args, CallSite* site) {
  auto add = [&](const Operand* list, std::vector<uint32_t>* offsets,
                 std::vector<uint32_t>* sizes) {
    if (!list) return true;
    for (const Operand& o : list->items) {
      if (o.kind != Kind::symbol || !o.variable || o.variable->space != ptx::Space::param) {
        return fail("an argument of a call must be a .param variable");
      }
      offsets->push_back(static_cast<uint32_t>(o.variable->address));
      sizes->push_back(static_cast<uint32_t>(o.variable->bytes));
    }
    return true;
  };
  return add(results, &site->results, &site->result_bytes) &&
         add(args, &site->args, &site->arg_bytes);
}

bool Decoder::call() {
  // call{.uni} (results), f, (args), prototype; every part but f may be missing.
  const auto& ops = operands();
  size_t at = 0;
  const Operand* results = nullptr;
  const Operand* args = nullptr;
  if (at < ops.size() && ops[at].kind == Kind::list) results = &ops[at++];
  if (at >= ops.size()) return unknown();
  const Operand& target = ops[at++];
  if (at < ops.size() && ops[at].kind == Kind::list) args = &ops[at++];
  CallSite site;
  site.caller = state_.index;
  if (!call_arguments(results, args, &site)) return false;
  if (target.kind == Kind::reg) {
    SlotRef address;
    if (!source(target, 8, &address)) return false;
    indirect_ = true;
    Op& op = emit(OpKind::call_indirect);
    op.a = address;
    op.target = static_cast<uint32_t>(program_.calls.size());
    program_.calls.push_back(std::move(site));
    return true;
  }
  if (target.kind != Kind::symbol) return unknown();
  const ptx::Function* f = module_.function(state_.function->text, target.name);
  if (f) {
    if (f->params.size() != site.args.size() || f->results.size() != site.results.size()) {
      return fail("the call and " + std::string(f->name) + " differ in their parameters");
    }
    site.function = function_index(*f);
    callees_[static_cast<size_t>(state_.index)].push_back(site.function);
  } else {
    site.builtin = builtin_named(target.name);
    if (site.builtin == Builtin::none)
      return fail("unresolved function " + std::string(target.name));
    size_t wanted = site.builtin == Builtin::assertfail      ? 5
                    : site.builtin == Builtin::vprintf       ? 2
                    : site.builtin == Builtin::set_condition ? 2
                                                             : 1;
    if (site.args.size() != wanted) return fail("wrong arguments of " + std::string(target.name));
    bool gives = site.builtin == Builtin::vprintf || site.builtin == Builtin::malloc;
    if (site.results.size() > (gives ? 1u : 0u))
      return fail("wrong results of " + std::string(target.name));
  }
  Op& op = emit(OpKind::call);
  op.target = static_cast<uint32_t>(program_.calls.size());
  program_.calls.push_back(std::move(site));
  return true;
}

/// bar and barrier, of a block or (bar.warp.sync) of a warp.
bool Decoder::barrier() {
  if (has("cluster")) {  // barrier.cluster: a cluster is one block; wait does the work of both
                         // halves
    if (has("arrive")) return true;
    Op& op = emit(OpKind::barrier);
    op.a = constant(15, 4);
    return true;
  }
  if (has("warp")) {
    SlotRef mask;
    if (!count_is(1) || !source(operands()[0], 4, &mask)) return false;
    emit(OpKind::warp_sync).a = mask;
    return true;
  }
  BarrierKind kind = BarrierKind::sync;
  if (has("arrive")) kind = BarrierKind::arrive;
  if (has("red")) {
    kind = has("popc")  ? BarrierKind::red_popc
           : has("and") ? BarrierKind::red_and
                        : BarrierKind::red_or;
  } else if (!has("sync") && !has("arrive")) {
    return unknown();
  }
  bool reduces = kind >= BarrierKind::red_popc;
  size_t at = reduces ? 1 : 0;
  size_t last = operands().size() - (reduces ? 1 : 0);
  SlotRef d = kNoSlot, id, count = kNoSlot, p = kNoSlot;
  if (operands().size() < at + 1 + (reduces ? 1 : 0)) return fail("wrong number of operands");
  if (reduces) {
    if (!destination(operands()[0], kind == BarrierKind::red_popc ? 4 : 1, &d)) return false;
    if (!predicate_source(operands().back(), &p)) return false;
  }
  if (!source(operands()[at], 4, &id)) return false;
  if (at + 1 < last && !source(operands()[at + 1], 4, &count)) return false;
  Op& op = emit(OpKind::barrier);
  op.variant = static_cast<uint8_t>(kind);
  op.d = d;
  op.dsize = kind == BarrierKind::red_popc ? 4 : 1;
  op.a = id;
  op.b = count;
  op.c = p;
  return true;
}

/// shfl{.sync}.mode.b32 d[|p], a, b, c{, membermask}
bool Decoder::shuffle() {
  if (!count_is(4, 5)) return false;
  ShuffleKind kind = has("up")     ? ShuffleKind::up
                     : has("down") ? ShuffleKind::down
                     : has("bfly") ? ShuffleKind::bfly
                                   : ShuffleKind::idx;
  const Operand& to = operands()[0];
  SlotRef d, p = kNoSlot, a, b, c, mask = kNoSlot;
  if (!destination(to.kind == Kind::pair ? to.items[0] : to, 4, &d)) return false;
  if (to.kind == Kind::pair && !destination(to.items[1], 1, &p)) return false;
  if (!source(operands()[1], 4, &a) || !source(operands()[2], 4, &b) ||
      !source(operands()[3], 4, &c)) {
    return false;
  }
  if (operands().size() == 5 && !source(operands()[4], 4, &mask)) return false;
  Op& op = emit(OpKind::shuffle);
  op.variant = static_cast<uint8_t>(kind);
  op.d = d;
  op.a = a;
  op.b = b;
  op.c = c;
  op.dsize = 4;
  op.target = static_cast<uint32_t>(program_.vectors.size());
  program_.vectors.push_back({p, mask});
  return true;
}

/// vote{.sync}.{all,any,uni}.pred p, q{, mask}; vote{.sync}.ballot.b32 d, q{, mask}
bool Decoder::vote() {
  if (!count_is(2, 3)) return false;
  VoteKind kind = has("all")   ? VoteKind::all
                  : has("any") ? VoteKind::any
                  : has("uni") ? VoteKind::uni
                               : VoteKind::ballot;
  SlotRef d, a, mask = kNoSlot;
  unsigned bytes = kind == VoteKind::ballot ? 4 : 1;
  if (!destination(operands()[0], bytes, &d) || !predicate_source(operands()[1], &a)) return false;
  if (operands().size() == 3 && !source(operands()[2], 4, &mask)) return false;
  Op& op = emit(OpKind::vote);
  op.variant = static_cast<uint8_t>(kind);
  op.d = d;
  op.dsize = static_cast<uint8_t>(bytes);
  op.a = a;
  op.b = mask;
  return true;
}

bool Decoder::match() {
  if (!count_is(3)) return false;
  bool all = has("all");
  unsigned bytes = ptx::type_bits(words().back()) / 8;
  const Operand& to = operands()[0];
  SlotRef d, p = kNoSlot, a, mask;
  if (!destination(to.kind == Kind::pair ? to.items[0] : to, 4, &d)) return false;
  if (to.kind == Kind::pair && !destination(to.items[1], 1, &p)) return false;
  if (!source(operands()[1], bytes, &a) || !source(operands()[2], 4, &mask)) return false;
  Op& op = emit(OpKind::match);
  op.variant = all;
  op.d = d;
  op.dsize = 4;
  op.asize = bytes;
  op.a = a;
  op.b = mask;
  op.c = p;
  return true;
}

/// redux.sync.op.type d, a, mask
bool Decoder::redux() {
  if (!count_is(3)) return false;
  std::string_view type = words().back();
  SlotRef d, a, mask;
  if (!destination(operands()[0], 4, &d) || !source(operands()[1], 4, &a) ||
      !source(operands()[2], 4, &mask)) {
    return false;
  }
  bool is_signed = type == "s32";
  std::string key;
  if (has("add"))
    key = "add.u32";
  else if (has("min") && type != "f32")
    key = is_signed ? "min.s32" : "min.u32";
  else if (has("max") && type != "f32")
    key = is_signed ? "max.s32" : "max.u32";
  else if (has("and"))
    key = "and.b32";
  else if (has("or"))
    key = "or.b32";
  else if (has("xor"))
    key = "xor.b32";
  else
    return unknown();
  Op& op = emit(OpKind::redux);
  op.alu = find_alu(key)->fn;
  op.d = d;
  op.dsize = 4;
  op.a = a;
  op.b = mask;
  return true;
}

/// elect.sync d|p, mask: the lowest lane.
bool Decoder::elect() {
  if (!count_is(2) || operands()[0].kind != Kind::pair) return unknown();
  SlotRef d, p, mask;
  if (!destination(operands()[0].items[0], 4, &d) || !destination(operands()[0].items[1], 1, &p) ||
      !source(operands()[1], 4, &mask)) {
    return false;
  }
  Op& op = emit(OpKind::elect);
  op.d = d;
  op.dsize = 4;
  op.b = mask;
  op.c = p;
  return true;
}

/// alloca would need frames of unknown size: none of the toolchains here emits it.
bool Decoder::stack() { return unknown("dynamic stack allocation"); }

}  // namespace softgpu::simt
