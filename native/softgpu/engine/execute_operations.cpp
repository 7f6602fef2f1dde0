// Operations on the lanes of one fragment: arithmetic under masks, memory, addresses, clocks.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <ctime>

#include "executor.hpp"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace softgpu::simt {
namespace {

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

/// Writes values computed elsewhere (a slot's worth, all lanes of the range) to the op's
/// destination.
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
    for (size_t k = 0; k < slots.size(); ++k)
      m.regs[k] = slots[k] == kNoSlot ? nullptr : at(slots[k]);
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
    if (m.misaligned ||
        (copied && !find_window(&view_, MemorySpace::global, lane, from, copied, &w))) {
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
                                      : uint64_t{lanes_of<uint32_t>(op.a)[lane]}) +
                       op.imm;
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
      clock_gettime(static_cast<ClockKind>(op.variant) == ClockKind::cycles ? CLOCK_MONOTONIC
                                                                            : CLOCK_REALTIME,
                    &t);
      uint64_t v =
          static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(t.tv_nsec);
      v >>= op.imm;
      budget_ -= kPollCost;
      for (int i = set.range.lo; i < set.range.hi; ++i) {
        if (op.dsize == 8)
          d8[i] = v;
        else
          d4[i] = static_cast<uint32_t>(v);
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
        if (op.dsize == 8)
          d8[i] = v;
        else
          d4[i] = static_cast<uint32_t>(v);
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

}  // namespace softgpu::simt
