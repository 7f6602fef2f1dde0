// Fragments: how lanes of a group part, wait for their turn and meet again.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "executor.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace softgpu::simt {
namespace {

/// Backward branches after which a fragment makes way for those further ahead.
constexpr uint32_t kLivelockBranches = 2000;

}  // namespace

LaneBits predicate_bits(const uint8_t* predicate, bool negated, const LaneSet& within) {
  LaneBits out;
  for (int base = within.range.lo; base < within.range.hi; base += kWarp) {
    uint32_t word = 0;
#if defined(__SSE2__)
    for (int half = 0; half < 2; ++half) {
      __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(predicate + base + 16 * half));
      int m = _mm_movemask_epi8(_mm_slli_epi16(v, 7));
      word |= static_cast<uint32_t>(m) << (16 * half);
    }
#else
    for (int k = 0; k < kWarp; ++k) word |= static_cast<uint32_t>(predicate[base + k] & 1) << k;
#endif
    out.word[static_cast<size_t>(base / kWarp)] =
        (negated ? ~word : word) & within.bits.word[static_cast<size_t>(base / kWarp)];
  }
  return out;
}

void Executor::set_lanes(const LaneBits& lanes) {
  now_.lanes = lanes;
  active_.assign(lanes, group_->live);
}

void Executor::enter(const Fragment& f) {
  now_ = f;
  now_.waiting = Waiting::no;
  base_[kRegisters] = group_->regs.get() + f.frame.regs;
  active_.assign(f.lanes, group_->live);
}

void Executor::park(uint32_t pc) {
  now_.pc = pc;
  for (Fragment& f : group_->fragments) {
    if (f.pc == pc && f.frame == now_.frame && f.waiting == Waiting::no) {
      f.lanes = f.lanes | now_.lanes;
      return;
    }
  }
  group_->fragments.push_back(now_);
}

/// Takes in all ready or warp-waiting fragments that are at the same place. True when any was.
bool Executor::merge_at(uint32_t pc) {
  auto& all = group_->fragments;
  LaneBits lanes = now_.lanes;
  size_t before = all.size();
  std::erase_if(all, [&](const Fragment& f) {
    bool same = f.pc == pc && f.frame == now_.frame && f.waiting != Waiting::barrier;
    if (same) {
      lanes = lanes | f.lanes;
      now_.forced |= f.forced;
    }
    return same;
  });
  if (all.size() == before) return false;
  set_lanes(lanes);
  return true;
}

/// Chooses the next ready fragment. False when there is none.
bool Executor::pick() {
  auto& all = group_->fragments;
  size_t best = all.size();
  for (size_t k = 0; k < all.size(); ++k) {
    if (all[k].waiting != Waiting::no) continue;
    if (best == all.size() || (hurry_ ? all[k].pc > all[best].pc : all[k].pc < all[best].pc))
      best = k;
  }
  if (best == all.size()) return false;
  Fragment f = all[best];
  all[best] = all.back();
  all.pop_back();
  enter(f);
  if (!all.empty()) merge_at(now_.pc);
  return true;
}

/// At a label while others are parked: merge, and give way to a fragment further back. True when
/// the running fragment changed.
bool Executor::at_leader(uint32_t pc) {
  merge_at(pc);
  if (hurry_) return false;
  for (const Fragment& f : group_->fragments) {
    if (f.waiting == Waiting::no && f.pc < pc) {
      park(pc);
      pick();
      return true;
    }
  }
  return false;
}

LaneSet& Executor::predicated(const Op& op) {
  if (op.predicate == kNoSlot) return active_;
  predicated_.assign(predicate_bits(lanes_of<uint8_t>(op.predicate), op.predicate_negated, active_),
                     group_->live);
  return predicated_;
}

/// Lanes that are done for ever.
void Executor::retire(const LaneBits& lanes) {
  group_->live = group_->live.without(lanes);
  block_->live -= static_cast<uint32_t>(lanes.count());
  set_lanes(now_.lanes.without(lanes));
}

/// True when this fragment goes on at *pc; false when another one has to be picked.
bool Executor::branch(const Op& op, uint32_t* pc) {
  LaneBits taken = op.predicate == kNoSlot ? now_.lanes
                                           : predicate_bits(lanes_of<uint8_t>(op.predicate),
                                                            op.predicate_negated, active_);
  if (!taken.any()) {
    ++*pc;
    return true;
  }
  bool backward = op.target <= *pc;
  if (backward) {
    budget_ -= *pc - op.target + 1;
    ++now_.backward;
  }
  LaneBits stay = now_.lanes.without(taken);
  if (stay.any()) {
    Fragment rest = now_;
    rest.lanes = stay;
    rest.pc = *pc + 1;
    group_->fragments.push_back(rest);
    set_lanes(taken);
  }
  *pc = op.target;
  if (group_->fragments.empty()) {
    now_.backward = 0;
    return budget_ > 0;
  }
  if (now_.backward > kLivelockBranches) {
    now_.backward = 0;
    hurry_ =
        true;  // let the ones ahead go as far as they can: one of them may hold what we wait for
    for (Fragment& f : group_->fragments) f.backward = 0;
    park(*pc);
    now_.lanes = {};
    // The looper must not be the one that is furthest ahead.
    Fragment looper = group_->fragments.back();
    size_t ready = 0;
    for (const Fragment& f : group_->fragments) ready += f.waiting == Waiting::no;
    if (ready > 1) {
      size_t best = group_->fragments.size();
      for (size_t k = 0; k < group_->fragments.size(); ++k) {
        const Fragment& f = group_->fragments[k];
        if (f.waiting != Waiting::no || (f.pc == looper.pc && f.frame == looper.frame)) continue;
        if (best == group_->fragments.size() || f.pc > group_->fragments[best].pc) best = k;
      }
      if (best < group_->fragments.size()) {
        Fragment f = group_->fragments[best];
        group_->fragments.erase(group_->fragments.begin() + static_cast<std::ptrdiff_t>(best));
        enter(f);
        *pc = now_.pc;
        return budget_ > 0;
      }
    }
    hurry_ = false;
    pick();
    *pc = now_.pc;
    return budget_ > 0;
  }
  if (stay.any() && !backward && !hurry_) {
    // The lanes that fell through are further back: they go first.
    park(*pc);
    pick();
    *pc = now_.pc;
  }
  return budget_ > 0;
}

bool Executor::branch_table(const Op& op, uint32_t* pc) {
  const auto& table = launch_->kernel->program.jump_tables[op.target];
  LaneBits taken = predicated(op).bits;
  if (!taken.any()) {
    ++*pc;
    return true;
  }
  LaneBits rest = now_.lanes.without(taken);
  Fragment f = now_;
  if (rest.any()) {
    f.lanes = rest;
    f.pc = *pc + 1;
    group_->fragments.push_back(f);
  }
  const uint32_t* index = lanes_of<uint32_t>(op.a);
  while (taken.any()) {
    int lane = taken.first();
    uint32_t which = index[lane];
    LaneBits same;
    each_lane(taken, [&](int l) {
      if (index[l] == which) same.set(l);
    });
    taken = taken.without(same);
    if (which >= table.size()) {
      return fault(Fault::invalid_program_counter, op, lane, "a jump outside of its table");
    }
    f.lanes = same;
    f.pc = table[which];
    if (f.pc <= *pc) budget_ -= *pc - f.pc + 1;
    group_->fragments.push_back(f);
  }
  pick();
  *pc = now_.pc;
  return true;
}

}  // namespace softgpu::simt
