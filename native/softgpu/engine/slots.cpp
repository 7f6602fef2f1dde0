// Lets short-lived registers share slots, so that the register file stays in the cache.
// SPDX-License-Identifier: Apache-2.0
//
// PTX names values, not registers: an unrolled loop has hundreds, each used once or twice. A value
// that is written and last read in one basic block needs its slot only in between. That holds lane
// by lane whatever the other lanes do, because a lane is at one place at a time.
#include <algorithm>
#include <unordered_map>

#include "program.hpp"

namespace softgpu::simt {
namespace {

struct Use {
  uint32_t block = 0;
  uint32_t last = 0;  ///< op
  bool local = true;  ///< all in one block, a whole write first
};

bool is_register(SlotRef s) { return s != kNoSlot && (s & 3) == kRegisters; }

bool is_plain(OpKind k) {
  return k == OpKind::alu || k == OpKind::alu_mode || k == OpKind::load || k == OpKind::store;
}

class Sharing {
 public:
  Sharing(Program* program, uint32_t begin, const std::unordered_map<SlotRef, uint32_t>& sizes)
      : program_(*program), begin_(begin), sizes_(sizes) {}

  uint32_t run() {
    find_uses();
    for (const auto& [slot, bytes] : sizes_) {
      auto it = uses_.find(slot);
      if (it == uses_.end() || !it->second.local) kept_.push_back(slot);
    }
    std::sort(kept_.begin(), kept_.end());
    for (SlotRef s : kept_) place_[s] = take(sizes_.at(s));
    rename();
    return bytes_;
  }

 private:
  template <class F>
  void reads(const Op& op, F f) {
    f(op.predicate);
    f(op.a);
    if (op.kind != OpKind::load) {
      f(op.b);
      f(op.c);
    }
    if (op.kind == OpKind::store) {
      for (SlotRef s : program_.vectors[op.target]) f(s);
    }
  }
  template <class F>
  void writes(const Op& op, F f) {
    if (op.kind == OpKind::load) {
      for (SlotRef s : program_.vectors[op.target]) f(s);
    } else if (op.kind != OpKind::store) {
      f(op.d);
    }
  }

  void see(SlotRef s, uint32_t pc, uint32_t block, bool whole_write) {
    if (!is_register(s)) return;
    auto [it, fresh] = uses_.emplace(s, Use{block, pc, whole_write});
    if (fresh) return;
    it->second.last = pc;
    if (it->second.block != block) it->second.local = false;
  }

  void find_uses() {
    uint32_t block = 0;
    for (uint32_t pc = begin_; pc < program_.ops.size(); ++pc) {
      const Op& op = program_.ops[pc];
      if (!is_plain(op.kind)) {
        ++block;
        escape(op);
        continue;
      }
      reads(op, [&](SlotRef s) { see(s, pc, block, false); });
      writes(op, [&](SlotRef s) { see(s, pc, block, op.predicate == kNoSlot); });
    }
  }
  /// What other operations touch keeps a slot of its own.
  void escape(const Op& op) {
    auto pin = [&](SlotRef s) {
      if (is_register(s)) uses_[s].local = false;
    };
    for (SlotRef s : {op.predicate, op.d, op.a, op.b, op.c}) pin(s);
    if (has_mixed_vector(op.kind)) {
      for (SlotRef s : program_.vectors[op.target]) pin(s);
    }
  }

  SlotRef take(uint32_t bytes) {
    auto& free = free_[bytes];
    if (!free.empty()) {
      SlotRef s = free.back();
      free.pop_back();
      return s;
    }
    SlotRef s = slot(kRegisters, bytes_);
    bytes_ += bytes;
    return s;
  }

  SlotRef renamed(SlotRef s) const {
    if (!is_register(s)) return s;
    return place_.at(s);
  }

  void rename() {
    for (uint32_t pc = begin_; pc < program_.ops.size(); ++pc) {
      Op& op = program_.ops[pc];
      std::vector<SlotRef> ended;
      if (is_plain(op.kind)) {
        auto end = [&](SlotRef s) {
          if (!is_register(s)) return;
          const Use& u = uses_.at(s);
          bool listed = std::find(ended.begin(), ended.end(), s) != ended.end();
          if (u.local && u.last == pc && !listed) ended.push_back(s);
        };
        writes(op, [&](SlotRef s) {
          if (is_register(s) && !place_.contains(s)) place_[s] = take(sizes_.at(s));
        });
        reads(op, end);
        writes(op, end);
      }
      bool has_vector =
          op.kind == OpKind::load || op.kind == OpKind::store || has_mixed_vector(op.kind);
      if (has_vector) {
        for (SlotRef& s : program_.vectors[op.target]) s = renamed(s);
      }
      for (SlotRef* s : {&op.predicate, &op.d, &op.a, &op.b, &op.c}) *s = renamed(*s);
      for (SlotRef s : ended) free_[sizes_.at(s)].push_back(place_.at(s));
    }
    program_.functions.back().frame_bytes = bytes_;
    FunctionCode& f = program_.functions.back();
    for (SlotRef* s : {&f.return_pc, &f.return_frame, &f.return_local, &f.return_site}) {
      if (*s != kNoSlot) *s = place_.at(*s);
    }
  }

  Program& program_;
  uint32_t begin_;
  const std::unordered_map<SlotRef, uint32_t>& sizes_;
  std::unordered_map<SlotRef, Use> uses_;
  std::unordered_map<SlotRef, SlotRef> place_;
  std::unordered_map<uint32_t, std::vector<SlotRef>> free_;
  std::vector<SlotRef> kept_;
  uint32_t bytes_ = 0;
};

}  // namespace

void share_slots(Program* program, uint32_t begin,
                 const std::unordered_map<SlotRef, uint32_t>& sizes) {
  Sharing(program, begin, sizes).run();
}

}  // namespace softgpu::simt
