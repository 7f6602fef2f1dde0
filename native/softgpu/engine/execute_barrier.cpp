// Barriers of a block: ids, counts, reductions, arrival without waiting.
// SPDX-License-Identifier: Apache-2.0
#include "executor.hpp"

namespace softgpu::simt {

/// Fragments wait one by one, each at its own pc; the block releases them when enough have come.
bool Executor::barrier(const Op& op, uint32_t pc, const LaneSet& set, bool* waits) {
  LaneBits lanes = set.bits;
  int lane = lanes.first();
  uint32_t id = lanes_of<uint32_t>(op.a)[lane];
  if (id >= 16)
    return fault(Fault::illegal_instruction, op, lane, "a barrier's number is above 15");
  auto kind = static_cast<BarrierKind>(op.variant);
  BarrierState& s = block_->barriers[id];
  // Barriers count warps on a GPU: the lanes of a partial warp that are not there count as well
  // when a number of threads is given. They come with the first lane of their warp.
  uint32_t arrived = static_cast<uint32_t>(lanes.count());
  if (op.b != kNoSlot) {
    s.expected = lanes_of<uint32_t>(op.b)[lane];
    for (size_t w = 0; w < kWarps; ++w) {
      uint32_t live = group_->live.word[w];
      if (live && (lanes.word[w] & (live & (0 - live)))) {
        arrived += static_cast<uint32_t>(std::popcount(~live));
      }
    }
  }
  s.arrived += arrived;
  if (kind >= BarrierKind::red_popc) {
    const uint8_t* p = lanes_of<uint8_t>(op.c);
    each_lane(lanes, [&](int l) {
      s.popc += p[l];
      s.all = s.all && p[l];
      s.any = s.any || p[l];
    });
  }
  if (kind == BarrierKind::arrive) return true;
  if (s.arrived >= (s.expected ? s.expected : block_->live) && kind == BarrierKind::sync &&
      block_->groups.size() == 1 && group_->fragments.empty() && lanes == now_.lanes) {
    s = BarrierState{};  // nobody else to wake
    return true;
  }
  *waits = true;
  Fragment f = now_;
  f.lanes = lanes;
  f.pc = pc + 1;
  f.waiting = Waiting::barrier;
  f.barrier = static_cast<uint8_t>(id);
  f.backward = 0;
  LaneBits rest = now_.lanes.without(lanes);
  bool merged = false;
  for (Fragment& other : group_->fragments) {
    if (other.waiting == Waiting::barrier && other.pc == f.pc && other.frame == f.frame &&
        other.barrier == f.barrier) {
      other.lanes = other.lanes | lanes;
      merged = true;
    }
  }
  if (!merged) group_->fragments.push_back(f);
  set_lanes(rest);
  return true;
}

bool Executor::release_barriers(Block& b) {
  bool any = false;
  for (uint8_t id = 0; id < 16; ++id) {
    BarrierState& s = b.barriers[id];
    if (s.arrived == 0) continue;
    if (s.arrived < (s.expected ? s.expected : b.live)) continue;
    for (Group& g : b.groups) {
      for (Fragment& f : g.fragments) {
        if (f.waiting != Waiting::barrier || f.barrier != id) continue;
        f.waiting = Waiting::no;
        any = true;
        const Op& op = ops_[f.pc - 1];
        auto kind = static_cast<BarrierKind>(op.variant);
        if (kind < BarrierKind::red_popc) continue;
        base_[kRegisters] = g.regs.get() + f.frame.regs;
        each_lane(f.lanes, [&](int lane) {
          if (kind == BarrierKind::red_popc)
            lanes_of<uint32_t>(op.d)[lane] = s.popc;
          else
            lanes_of<uint8_t>(op.d)[lane] = kind == BarrierKind::red_and ? s.all : s.any;
        });
      }
    }
    s = BarrierState{};
  }
  return any;
}

}  // namespace softgpu::simt
