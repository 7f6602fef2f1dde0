// The interpreter's loop: fragments, branches, memory, blocks.
// SPDX-License-Identifier: Apache-2.0
#include "executor.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace softgpu::simt {
namespace {

/// Micro-operations of backward branches that a visit of a group may spend before others get a turn.
constexpr int64_t kBudget = 400'000;
/// An access that polls memory costs this many, so a spinning block soon makes way.
constexpr int64_t kPollCost = 400;
constexpr uint32_t kLivelockBranches = 2000;
/// Blocks that one thread keeps besides the running one when they wait for each other.
constexpr size_t kMaxResident = 64;

/// Sets rounding and flushing while in scope.
class FpControl {
 public:
#if defined(__x86_64__)
  explicit FpControl(uint8_t mode) : saved_(_mm_getcsr()) {
    unsigned csr = saved_ & ~0xe040u;
    csr |= (mode & 3u) << 13;
    if (mode & kFlush) csr |= 0x8040u;
    _mm_setcsr(csr);
  }
  ~FpControl() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  explicit FpControl(uint8_t mode) {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    constexpr uint64_t modes[] = {0, 2, 1, 3};  // FPCR.RMode: nearest, up, down, zero
    uint64_t fpcr = (saved_ & ~(uint64_t{7} << 22)) | modes[mode & 3] << 22;
    if (mode & kFlush) fpcr |= uint64_t{1} << 24;
    __asm__ volatile("msr fpcr, %0" ::"r"(fpcr));
  }
  ~FpControl() { __asm__ volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  uint64_t saved_ = 0;
#else
#error "The software GPU needs to control rounding on this CPU"
#endif
};

}  // namespace

AlignedBytes aligned_bytes(size_t bytes) {
  bytes = (bytes + 4095) / 4096 * 4096;
  auto* p = static_cast<char*>(std::aligned_alloc(4096, bytes));
  if (p) std::memset(p, 0, bytes);
  return AlignedBytes(p);
}

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

void LaunchState::fail(Fault fault, std::string detail) {
  std::lock_guard lock(mutex);
  if (outcome.fault == Fault::none) outcome = {fault, std::move(detail)};
  stop.store(true);
}

std::string Executor::place_of(int lane) const {
  const auto& d = launch_->launch.block;
  size_t group = static_cast<size_t>(group_ - block_->groups.data());
  uint32_t t = static_cast<uint32_t>(group) * kMaxLanes + static_cast<uint32_t>(lane);
  const auto& c = block_->ctaid;
  return "kernel " + launch_->kernel->info.name + ", block (" + std::to_string(c[0]) + "," +
         std::to_string(c[1]) + "," + std::to_string(c[2]) + "), thread (" + std::to_string(t % d[0]) +
         "," + std::to_string(t / d[0] % d[1]) + "," + std::to_string(t / d[0] / d[1]) + ")";
}

bool Executor::fault(Fault f, const Op& op, int lane, const std::string& what) {
  launch_->fail(f, place_of(lane) + ", PTX line " + std::to_string(op.line) + ": " + what);
  return false;
}

bool Executor::memory_fault(const Op& op, const MemoryAccess& m) {
  static const char* const names[] = {"generic", "global", "shared", "local", "param"};
  char hex[32];
  std::snprintf(hex, sizeof hex, "0x%llx", static_cast<unsigned long long>(m.fault_address));
  std::string what = std::string(m.misaligned ? "misaligned " : "illegal ") +
                     (op.kind == OpKind::store ? "store to " : op.kind == OpKind::atomic ? "atomic on " : "load from ") +
                     names[static_cast<int>(m.space)] + " address " + hex;
  return fault(m.misaligned ? Fault::misaligned_address : Fault::illegal_address, op, m.fault_lane, what);
}

// ---- fragments

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
    if (best == all.size() || (hurry_ ? all[k].pc > all[best].pc : all[k].pc < all[best].pc)) best = k;
  }
  if (best == all.size()) return false;
  Fragment f = all[best];
  all[best] = all.back();
  all.pop_back();
  enter(f);
  if (!all.empty()) merge_at(now_.pc);
  return true;
}

/// At a label while others are parked: merge, and give way to a fragment further back. True when the
/// running fragment changed.
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
  predicated_.assign(
      predicate_bits(lanes_of<uint8_t>(op.predicate), op.predicate_negated, active_), group_->live);
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
  LaneBits taken = op.predicate == kNoSlot
                       ? now_.lanes
                       : predicate_bits(lanes_of<uint8_t>(op.predicate), op.predicate_negated, active_);
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
    hurry_ = true;  // let the ones ahead go as far as they can: one of them may hold what we wait for
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

// ---- operations

/// Writes values computed elsewhere (a slot's worth, all lanes of the range) to the op's destination.
void Executor::give(const Op& op, const void* values, LaneSet& set) {
  find_blend(op.dsize)(at(op.d), values, set.mask(), set.range);
}

void Executor::alu_masked(const Op& op, LaneSet& set) {
  op.alu(scratch_, at(op.a), at(op.b), at(op.c), op.imm, set.range);
  give(op, scratch_, set);
}

void Executor::alu_mode(const Op& op, LaneSet& set) {
  FpControl control(op.mode);
  if (set.full) {
    op.alu(at(op.d), at(op.a), at(op.b), at(op.c), op.imm, set.range);
  } else {
    alu_masked(op, set);
  }
}

bool Executor::memory(const Op& op, LaneSet& set) {
  MemoryAccess m;
  m.address = at(op.a);
  m.address_bytes = op.asize;
  m.offset = static_cast<int64_t>(op.imm);
  m.count = op.count;
  m.lanes = set.range;
  m.mask = set.bits.word.data();
  m.space = op.space;
  m.window = view_.window(op.space);
  m.view = &view_;
  m.patterns = patterns_[op.memo];
  m.patterns_known = op.memo_known;
  if (op.kind != OpKind::atomic && op.count == 1) {
    SlotRef data = op.kind == OpKind::load ? op.d : op.b;
    m.regs[0] = data == kNoSlot ? scratch_ : at(data);
  } else {
    const auto& slots = program_->vectors[op.target];
    for (size_t k = 0; k < slots.size(); ++k) m.regs[k] = slots[k] == kNoSlot ? nullptr : at(slots[k]);
    if (op.b != kNoSlot) m.second = at(op.b);
    if (op.c != kNoSlot) m.third = at(op.c);
  }
  if (op.leads) budget_ -= kPollCost;
  return op.memory(m) || memory_fault(op, m);
}

bool Executor::async_copy(const Op& op, LaneSet& set) {
  bool ok = true;
  each_lane(set.bits, [&](int lane) {
    if (!ok) return;
    auto address = [&](SlotRef s, uint32_t bytes) {
      return bytes == 8 ? lanes_of<uint64_t>(s)[lane] : uint64_t{lanes_of<uint32_t>(s)[lane]};
    };
    uint64_t from = address(op.a, op.asize) + op.imm, to = address(op.b, op.dsize);
    uint32_t size = op.count;
    uint32_t copied = op.c == kNoSlot ? size : std::min(size, lanes_of<uint32_t>(op.c)[lane]);
    MemoryAccess m;
    m.fault_lane = lane;
    m.space = MemorySpace::global;
    m.fault_address = from;
    m.misaligned = (from & (size - 1)) != 0;
    Window w;
    if (m.misaligned || (copied && !find_window(&view_, MemorySpace::global, lane, from, copied, &w))) {
      ok = memory_fault(op, m);
      return;
    }
    m.space = MemorySpace::shared;
    m.fault_address = to;
    m.misaligned = (to & (size - 1)) != 0;
    if (m.misaligned || size > view_.shared.size || to > view_.shared.size - size) {
      ok = memory_fault(op, m);
      return;
    }
    if (copied) std::memcpy(view_.shared.host + to, w.host + (from - w.base), copied);
    std::memset(view_.shared.host + to + copied, 0, size - copied);
  });
  return ok;
}

/// An mbarrier's word: pending arrivals (20 bits), their number at each phase (20), the phase (1).
bool Executor::mbarrier(const Op& op, LaneSet& set) {
  constexpr uint64_t kCount = (1u << 20) - 1;
  bool ok = true;
  budget_ -= kPollCost;
  each_lane(set.bits, [&](int lane) {
    if (!ok) return;
    uint64_t address = (op.asize == 8 ? lanes_of<uint64_t>(op.a)[lane]
                                      : uint64_t{lanes_of<uint32_t>(op.a)[lane]}) + op.imm;
    if (op.space == MemorySpace::generic) address -= reinterpret_cast<uint64_t>(view_.shared.host);
    if (address & 7 || view_.shared.size < 8 || address > view_.shared.size - 8) {
      MemoryAccess m;
      m.fault_lane = lane;
      m.fault_address = address;
      m.space = MemorySpace::shared;
      m.misaligned = address & 7;
      ok = memory_fault(op, m);
      return;
    }
    auto* word = reinterpret_cast<uint64_t*>(view_.shared.host + address);
    uint64_t pending = *word & kCount, expected = *word >> 20 & kCount, phase = *word >> 40 & 1;
    switch (static_cast<MbarrierKind>(op.variant)) {
      case MbarrierKind::init: {
        uint64_t n = lanes_of<uint32_t>(op.b)[lane] & kCount;
        *word = n | n << 20;
        break;
      }
      case MbarrierKind::inval:
        *word = 0;
        break;
      case MbarrierKind::arrive:
      case MbarrierKind::arrive_drop: {
        uint64_t n = lanes_of<uint32_t>(op.b)[lane] & kCount;
        if (op.d != kNoSlot) lanes_of<uint64_t>(op.d)[lane] = *word;
        if (static_cast<MbarrierKind>(op.variant) == MbarrierKind::arrive_drop) expected -= n;
        pending = pending > n ? pending - n : 0;
        if (pending == 0) {
          phase ^= 1;
          pending = expected;
        }
        *word = pending | expected << 20 | phase << 40;
        break;
      }
      case MbarrierKind::test_wait: {
        // The state says (or the parity is) which phase is waited for.
        uint64_t waited = op.leads ? lanes_of<uint32_t>(op.b)[lane] & 1
                                   : lanes_of<uint64_t>(op.b)[lane] >> 40 & 1;
        lanes_of<uint8_t>(op.d)[lane] = waited != phase;
        break;
      }
      case MbarrierKind::expect_tx:
        break;
    }
  });
  return ok;
}

void Executor::generic_address(const Op& op, LaneSet& set) {
  uint64_t base = op.space == MemorySpace::shared  ? reinterpret_cast<uint64_t>(view_.shared.host)
                  : op.space == MemorySpace::param ? reinterpret_cast<uint64_t>(view_.param.host)
                                                   : reinterpret_cast<uint64_t>(view_.local.host);
  uint64_t stride = op.space == MemorySpace::local ? view_.local.lane_stride : 0;
  const uint64_t* a = lanes_of<uint64_t>(op.a);
  auto* out = reinterpret_cast<uint64_t*>(scratch_);
  bool to_generic = op.kind == OpKind::generic_address;
  for (int i = set.range.lo; i < set.range.hi; ++i) {
    uint64_t offset = base + stride * static_cast<uint64_t>(i);
    out[i] = to_generic ? a[i] + offset : a[i] - offset;
  }
  give(op, scratch_, set);
}

/// The rest: operations that are neither hot nor change the flow of control.
void Executor::other(const Op& op, LaneSet& set) {
  auto* d8 = reinterpret_cast<uint64_t*>(scratch_);
  auto* d4 = reinterpret_cast<uint32_t*>(scratch_);
  switch (op.kind) {
    case OpKind::fence:
      std::atomic_thread_fence(std::memory_order_seq_cst);
      break;
    case OpKind::active_mask:
      for (int i = set.range.lo; i < set.range.hi; ++i) {
        d4[i] = set.bits.word[static_cast<size_t>(i / kWarp)];
      }
      give(op, scratch_, set);
      break;
    case OpKind::clock: {
      timespec t;
      clock_gettime(static_cast<ClockKind>(op.variant) == ClockKind::cycles ? CLOCK_MONOTONIC : CLOCK_REALTIME, &t);
      uint64_t v = static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(t.tv_nsec);
      v >>= op.imm;
      budget_ -= kPollCost;
      for (int i = set.range.lo; i < set.range.hi; ++i) {
        if (op.dsize == 8) d8[i] = v;
        else d4[i] = static_cast<uint32_t>(v);
      }
      give(op, scratch_, set);
      break;
    }
    case OpKind::sleep:
      budget_ -= kBudget / 4;
      break;
    case OpKind::frame_address:
      for (int i = set.range.lo; i < set.range.hi; ++i) {
        uint64_t v = now_.frame.local + op.imm;
        if (op.dsize == 8) d8[i] = v;
        else d4[i] = static_cast<uint32_t>(v);
      }
      give(op, scratch_, set);
      break;
    case OpKind::is_space: {
      const uint64_t* a = lanes_of<uint64_t>(op.a);
      auto inside = [](uint64_t v, const void* begin, uint64_t size) {
        return v - reinterpret_cast<uint64_t>(begin) < size;
      };
      for (int i = set.range.lo; i < set.range.hi; ++i) {
        bool shared = inside(a[i], view_.shared.host, view_.shared.size);
        bool local = inside(a[i], view_.local_begin, view_.local_bytes);
        bool param = inside(a[i], view_.param.host, view_.param.size);
        scratch_[i] = op.space == MemorySpace::shared  ? shared
                      : op.space == MemorySpace::local ? local
                      : op.space == MemorySpace::param ? param
                                                       : !shared && !local && !op.variant;
      }
      give(op, scratch_, set);
      break;
    }
    default:
      generic_address(op, set);
  }
}

// ---- the loop

Progress Executor::interpret() {
  uint32_t pc = now_.pc;
  const auto& others = group_->fragments;
  while (true) {
    const Op& op = ops_[pc];
    switch (op.kind) {
      case OpKind::alu:
        if (op.predicate == kNoSlot && active_.full) [[likely]] {
          op.alu(at(op.d), at(op.a), at(op.b), at(op.c), op.imm, active_.range);
        } else {
          LaneSet& set = predicated(op);
          if (set.full) op.alu(at(op.d), at(op.a), at(op.b), at(op.c), op.imm, set.range);
          else alu_masked(op, set);
        }
        ++pc;
        continue;
      case OpKind::load:
      case OpKind::store:
      case OpKind::atomic: {
        LaneSet& set = predicated(op);
        if (set.range.lo < set.range.hi && !memory(op, set)) return Progress::failed;
        ++pc;
        continue;
      }
      case OpKind::alu_mode:
        alu_mode(op, predicated(op));
        ++pc;
        continue;
      case OpKind::leader:
        if (!others.empty() && at_leader(pc)) pc = now_.pc;
        else ++pc;
        continue;
      case OpKind::branch:
        if (branch(op, &pc)) continue;
        park(pc);
        return Progress::yielded;
      case OpKind::branch_table:
        if (!branch_table(op, &pc)) return Progress::failed;
        if (budget_ > 0) continue;
        park(pc);
        return Progress::yielded;
      case OpKind::exit: {
        retire(predicated(op).bits);
        if (now_.lanes.any()) {
          ++pc;
          continue;
        }
        break;
      }
      case OpKind::call:
      case OpKind::call_indirect: {
        LaneSet& set = predicated(op);
        if (!set.bits.any()) {
          ++pc;
          continue;
        }
        now_.pc = pc;
        bool ok = op.kind == OpKind::call ? call(op, pc, set) : call_indirect(op, pc, set);
        if (!ok) return Progress::failed;
        pc = now_.pc;
        if (budget_ > 0) continue;
        park(pc);
        return Progress::yielded;
      }
      case OpKind::ret: {
        LaneSet& set = predicated(op);
        if (!set.bits.any()) {
          ++pc;
          continue;
        }
        now_.pc = pc + 1;
        ret(op, set);
        pc = now_.pc;
        continue;
      }
      case OpKind::barrier: {
        LaneSet& set = predicated(op);
        bool waits = false;
        if (set.bits.any() && !barrier(op, pc, set, &waits)) return Progress::failed;
        if (!waits || now_.lanes.any()) {
          ++pc;
          continue;
        }
        break;
      }
      case OpKind::warp_sync:
      case OpKind::shuffle:
      case OpKind::vote:
      case OpKind::match:
      case OpKind::redux:
      case OpKind::elect:
        if (warp(op, &pc, predicated(op))) continue;
        break;
      case OpKind::async_copy:
        if (!async_copy(op, predicated(op))) return Progress::failed;
        ++pc;
        continue;
      case OpKind::mbarrier:
        if (!mbarrier(op, predicated(op))) return Progress::failed;
        ++pc;
        continue;
      case OpKind::trap: {
        LaneSet& set = predicated(op);
        if (set.bits.any()) {
          fault(Fault::launch_failed, op, set.bits.first(), "trap");
          return Progress::failed;
        }
        ++pc;
        continue;
      }
      default:
        other(op, predicated(op));
        ++pc;
        continue;
    }
    // This fragment ended or waits.
    hurry_ = false;
    if (!pick()) return Progress::done;
    pc = now_.pc;
  }
}

Progress Executor::run_group(Block& b, Group& g) {
  block_ = &b;
  group_ = &g;
  size_t index = static_cast<size_t>(&g - b.groups.data());
  base_[kConstants] = program_->constants.get();
  base_[kSpecials] = g.specials.get();
  view_.local.host = b.local.get() + index * kMaxLanes * view_.local.lane_stride;
  budget_ = kBudget;
  hurry_ = false;
  if (!pick()) return Progress::done;
  return interpret();
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
          if (kind == BarrierKind::red_popc) lanes_of<uint32_t>(op.d)[lane] = s.popc;
          else lanes_of<uint8_t>(op.d)[lane] = kind == BarrierKind::red_and ? s.all : s.any;
        });
      }
    }
    s = BarrierState{};
  }
  return any;
}

/// Nothing can run: lanes that wait for others of their warp go on without them.
bool Executor::force_warps(Block& b) {
  bool any = false;
  for (Group& g : b.groups) {
    for (Fragment& f : g.fragments) {
      if (f.waiting != Waiting::warp) continue;
      f.waiting = Waiting::no;
      f.forced = any = true;
    }
  }
  return any;
}

Progress Executor::run_block(Block& b) {
  view_.shared = {0, launch_->shared_bytes, b.shared.get(), 0};
  view_.local_begin = b.local.get();
  view_.local_bytes = view_.local.lane_stride * b.groups.size() * kMaxLanes;
  view_.generic = {};
  bool yielded = false;
  while (true) {
    for (size_t k = 0; k < b.groups.size(); ++k) {
      Group& g = b.groups[k];
      if (g.fragments.empty()) continue;
      Progress p = run_group(b, g);
      if (p == Progress::failed) return p;
      yielded |= p == Progress::yielded;
    }
    if (b.live == 0) return Progress::done;
    bool released = release_barriers(b);
    if (yielded) return Progress::yielded;
    if (released || force_warps(b)) continue;
    launch_->fail(Fault::launch_timeout,
                  "kernel " + launch_->kernel->info.name + ", block " + std::to_string(b.index) +
                      ": all threads wait at barriers that the others never reach");
    return Progress::failed;
  }
}

bool Executor::should_stop() {
  if (launch_->stop.load(std::memory_order_relaxed)) return true;
  if (launch_->cancelled->load(std::memory_order_relaxed)) {
    launch_->fail(Fault::launch_failed, "kernel " + launch_->kernel->info.name + ": cancelled");
    return true;
  }
  if (launch_->has_deadline && std::chrono::steady_clock::now() > launch_->deadline) {
    launch_->fail(Fault::launch_timeout,
                  "kernel " + launch_->kernel->info.name + ": the time limit is over");
    return true;
  }
  return false;
}

void Executor::run(LaunchState& launch, AddressSpace& space, unsigned worker, unsigned workers) {
  AddressSpaceReader reader(space);
  launch_ = &launch;
  program_ = launch.program;
  ops_ = program_->ops.data();
  worker_ = worker;
  prepare(launch);
  view_.space = &reader;
  const bool cooperative = launch.launch.cooperative;
  uint64_t mine = worker;  // cooperative: the blocks are dealt out, all of them stay
  size_t resident = 0;
  bool more = true;
  auto take = [&] {
    uint64_t index = cooperative ? mine : launch.next_block.fetch_add(1);
    mine += workers;
    if (index >= launch.blocks) return more = false;
    size_t k = 0;
    while (k < slots_.size() && slots_[k]->active) ++k;
    if (k == slots_.size()) slots_.push_back(std::make_unique<Block>());
    start_block(*slots_[k], index);
    ++resident;
    return true;
  };
  while (cooperative && take()) {
  }
  while (!should_stop()) {
    if (resident == 0 && (!more || !take())) break;
    bool all_yielded = true;
    for (size_t k = 0; k < slots_.size() && !launch.stop.load(std::memory_order_relaxed); ++k) {
      Block& b = *slots_[k];
      if (!b.active) continue;
      Progress p = run_block(b);
      if (p == Progress::failed) break;
      if (p != Progress::done) continue;
      b.active = false;
      --resident;
      all_yielded = false;
    }
    // Whoever waits may wait for a block that has not begun.
    if (all_yielded && more && resident < kMaxResident) take();
  }
  for (auto& b : slots_) b->active = false;
  if (slots_.size() > 8) slots_.resize(8);
  view_.space = nullptr;
}

}  // namespace softgpu::simt
