// The interpreter's loop, and how blocks take turns.
// SPDX-License-Identifier: Apache-2.0
#include "executor.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace softgpu::simt {
namespace {

/// Blocks that one thread keeps besides the running one when they wait for each other.
constexpr size_t kMaxResident = 64;

}  // namespace

AlignedBytes aligned_bytes(size_t bytes) {
  bytes = (bytes + 4095) / 4096 * 4096;
  auto* p = static_cast<char*>(std::aligned_alloc(4096, bytes));
  if (p) std::memset(p, 0, bytes);
  return AlignedBytes(p);
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
         std::to_string(c[1]) + "," + std::to_string(c[2]) + "), thread (" +
         std::to_string(t % d[0]) + "," + std::to_string(t / d[0] % d[1]) + "," +
         std::to_string(t / d[0] / d[1]) + ")";
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
                     (op.kind == OpKind::store    ? "store to "
                      : op.kind == OpKind::atomic ? "atomic on "
                                                  : "load from ") +
                     names[static_cast<int>(m.space)] + " address " + hex;
  return fault(m.misaligned ? Fault::misaligned_address : Fault::illegal_address, op, m.fault_lane,
               what);
}

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
          if (set.full)
            op.alu(at(op.d), at(op.a), at(op.b), at(op.c), op.imm, set.range);
          else
            alu_masked(op, set);
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
        if (!others.empty() && at_leader(pc))
          pc = now_.pc;
        else
          ++pc;
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
      case OpKind::texture:
      case OpKind::texture_query:
        if (!texture(op, predicated(op))) return Progress::failed;
        ++pc;
        continue;
      case OpKind::surface_load:
      case OpKind::surface_store:
        if (!surface(op, predicated(op))) return Progress::failed;
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
