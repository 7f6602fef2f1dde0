// Instructions in which the 32 lanes of a warp take part together.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "executor.hpp"

namespace softgpu::simt {

/// The lanes of each warp whose membermask has all come: they go on. The others wait, and go on
/// together with the late ones, or without them when nothing else in the block can run.
LaneBits Executor::gather_warps(const Op& op, uint32_t pc, const LaneSet& set, SlotRef mask) {
  if (mask == kNoSlot || group_->fragments.empty()) return set.bits;
  if (merge_at(pc)) predicated(op);
  LaneBits all = predicated(op).bits;
  if (now_.forced) {
    now_.forced = false;
    return all;
  }
  const uint32_t* members = lanes_of<uint32_t>(mask);
  LaneBits waiting;
  for (size_t w = 0; w < kWarps; ++w) {
    uint32_t here = all.word[w];
    if (!here) continue;
    uint32_t wanted = members[w * kWarp + static_cast<size_t>(std::countr_zero(here))];
    // Lanes whose predicate is false have passed by and are not waited for.
    if (wanted & group_->live.word[w] & ~now_.lanes.word[w]) waiting.word[w] = here;
  }
  if (!waiting.any()) return all;
  Fragment f = now_;
  f.pc = pc;
  f.lanes = waiting;
  f.waiting = Waiting::warp;
  f.backward = 0;
  group_->fragments.push_back(f);
  set_lanes(now_.lanes.without(waiting));
  return all.without(waiting);
}

/// True when the fragment goes on at *pc; false when it has nobody left.
bool Executor::warp(const Op& op, uint32_t* pc, LaneSet& set) {
  SlotRef mask = op.kind == OpKind::warp_sync ? op.a
                 : op.kind == OpKind::shuffle ? program_->vectors[op.target][1]
                                              : op.b;
  LaneBits lanes = gather_warps(op, *pc, set, mask);
  if (lanes.any()) {
    switch (op.kind) {
      case OpKind::shuffle:
        shuffle(op, lanes);
        break;
      case OpKind::vote:
        vote(op, lanes);
        break;
      case OpKind::match:
        match(op, lanes);
        break;
      case OpKind::redux:
        redux(op, lanes);
        break;
      case OpKind::elect:
        elect(op, lanes);
        break;
      default:
        break;
    }
  }
  if (!now_.lanes.any()) return false;
  ++*pc;
  return true;
}

void Executor::shuffle(const Op& op, const LaneBits& lanes) {
  const uint32_t* a = lanes_of<uint32_t>(op.a);
  const uint32_t* b = lanes_of<uint32_t>(op.b);
  const uint32_t* c = lanes_of<uint32_t>(op.c);
  uint32_t* d = lanes_of<uint32_t>(op.d);
  SlotRef p_slot = program_->vectors[op.target][0];
  uint8_t* p = p_slot == kNoSlot ? nullptr : lanes_of<uint8_t>(p_slot);
  auto kind = static_cast<ShuffleKind>(op.variant);
  for (int w = 0; w < kWarps; ++w) {
    uint32_t mask = lanes.word[static_cast<size_t>(w)];
    if (!mask) continue;
    const int base = w * kWarp;
    uint32_t source[kWarp];
    std::memcpy(source, a + base, sizeof source);
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
      int lane = std::countr_zero(rest);
      uint32_t clamp = c[base + lane] & 31, segment = c[base + lane] >> 8 & 31;
      int delta = static_cast<int>(b[base + lane] & 31);
      int top = static_cast<int>((static_cast<uint32_t>(lane) & segment) | (clamp & ~segment));
      int bottom = static_cast<int>(static_cast<uint32_t>(lane) & segment);
      int from = lane;
      bool in = false;
      switch (kind) {
        case ShuffleKind::up:
          from = lane - delta;
          in = from >= top;
          break;
        case ShuffleKind::down:
          from = lane + delta;
          in = from <= top;
          break;
        case ShuffleKind::bfly:
          from = lane ^ delta;
          in = from <= top;
          break;
        case ShuffleKind::idx:
          from = bottom | (delta & static_cast<int>(~segment & 31));
          in = from <= top;
          break;
      }
      if (!in) from = lane;
      d[base + lane] = source[from];
      if (p) p[base + lane] = in;
    }
  }
}

void Executor::vote(const Op& op, const LaneBits& lanes) {
  const uint8_t* a = lanes_of<uint8_t>(op.a);
  auto kind = static_cast<VoteKind>(op.variant);
  for (int w = 0; w < kWarps; ++w) {
    uint32_t mask = lanes.word[static_cast<size_t>(w)];
    if (!mask) continue;
    uint32_t yes = 0;
    for (int k = 0; k < kWarp; ++k) yes |= static_cast<uint32_t>(a[w * kWarp + k] & 1) << k;
    yes &= mask;
    bool value = kind == VoteKind::all   ? yes == mask
                 : kind == VoteKind::any ? yes != 0
                                         : yes == mask || yes == 0;
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
      int lane = w * kWarp + std::countr_zero(rest);
      if (kind == VoteKind::ballot)
        lanes_of<uint32_t>(op.d)[lane] = yes;
      else
        lanes_of<uint8_t>(op.d)[lane] = value;
    }
  }
}

void Executor::match(const Op& op, const LaneBits& lanes) {
  uint32_t* d = lanes_of<uint32_t>(op.d);
  uint8_t* p = op.c == kNoSlot ? nullptr : lanes_of<uint8_t>(op.c);
  for (int w = 0; w < kWarps; ++w) {
    uint32_t mask = lanes.word[static_cast<size_t>(w)];
    if (!mask) continue;
    const int base = w * kWarp;
    uint64_t v[kWarp] = {};
    for (int k = 0; k < kWarp; ++k) {
      v[k] =
          op.asize == 8 ? lanes_of<uint64_t>(op.a)[base + k] : lanes_of<uint32_t>(op.a)[base + k];
    }
    uint64_t first = v[std::countr_zero(mask)];
    bool all = true;
    for (uint32_t rest = mask; rest; rest &= rest - 1)
      all = all && v[std::countr_zero(rest)] == first;
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
      int lane = std::countr_zero(rest);
      uint32_t same = 0;
      for (uint32_t r = mask; r; r &= r - 1) {
        int k = std::countr_zero(r);
        same |= static_cast<uint32_t>(v[k] == v[lane]) << k;
      }
      d[base + lane] = op.variant ? (all ? mask : 0) : same;
      if (p) p[base + lane] = all;
    }
  }
}

void Executor::redux(const Op& op, const LaneBits& lanes) {
  const uint32_t* a = lanes_of<uint32_t>(op.a);
  uint32_t* d = lanes_of<uint32_t>(op.d);
  for (int w = 0; w < kWarps; ++w) {
    uint32_t mask = lanes.word[static_cast<size_t>(w)];
    if (!mask) continue;
    // The operation's own handler on slots of one warp, of which lane 0 counts.
    alignas(64) uint32_t x[kWarp] = {}, y[kWarp] = {};
    x[0] = a[w * kWarp + std::countr_zero(mask)];
    for (uint32_t rest = mask & (mask - 1); rest; rest &= rest - 1) {
      y[0] = a[w * kWarp + std::countr_zero(rest)];
      op.alu(x, x, y, y, 0, {0, kWarp});
    }
    for (uint32_t rest = mask; rest; rest &= rest - 1) d[w * kWarp + std::countr_zero(rest)] = x[0];
  }
}

void Executor::elect(const Op& op, const LaneBits& lanes) {
  uint32_t* d = lanes_of<uint32_t>(op.d);
  uint8_t* p = lanes_of<uint8_t>(op.c);
  for (int w = 0; w < kWarps; ++w) {
    uint32_t mask = lanes.word[static_cast<size_t>(w)];
    if (!mask) continue;
    int leader = std::countr_zero(mask);
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
      int lane = std::countr_zero(rest);
      d[w * kWarp + lane] = static_cast<uint32_t>(leader);
      p[w * kWarp + lane] = lane == leader;
    }
  }
}

}  // namespace softgpu::simt
