// Sets up blocks: registers, special registers, shared and local memory.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "executor.hpp"

namespace softgpu::simt {
namespace {

void ensure(AlignedBytes& p, size_t& have, size_t want) {
  if (have >= want && p) return;
  p = aligned_bytes(std::max<size_t>(want, 64));
  have = want;
}

}  // namespace

/// Windows that stay the same for all blocks of a launch.
void Executor::prepare(LaunchState& launch) {
  view_.param = {0, launch.params.size() * 8, reinterpret_cast<char*>(launch.params.data()), 0};
  view_.local = {0, launch.kernel->program.local_bytes, nullptr,
                 launch.kernel->program.local_bytes};
  view_.global = {};
  view_.generic = {};
  // Special registers that depend on the launch are written when a block's slot is first used.
  for (auto& b : slots_) b->groups.clear();
}

void Executor::start_block(Block& b, uint64_t index) {
  const Launch& l = launch_->launch;
  b.active = true;
  b.index = index;
  b.ctaid[0] = static_cast<uint32_t>(index % l.grid[0]);
  b.ctaid[1] = static_cast<uint32_t>(index / l.grid[0] % l.grid[1]);
  b.ctaid[2] = static_cast<uint32_t>(index / l.grid[0] / l.grid[1]);
  b.live = launch_->threads;
  std::fill(std::begin(b.barriers), std::end(b.barriers), BarrierState{});
  ensure(b.shared, b.shared_bytes, launch_->shared_bytes);
  size_t groups = (launch_->threads + kMaxLanes - 1) / kMaxLanes;
  ensure(b.local, b.local_bytes, view_.local.lane_stride * groups * kMaxLanes);
  bool fresh = b.groups.size() != groups;
  if (fresh) {
    b.groups.clear();
    b.groups.resize(groups);
  }
  for (size_t k = 0; k < groups; ++k) {
    Group& g = b.groups[k];
    if (fresh) {
      ensure(g.regs, g.regs_bytes, program_->functions[0].frame_bytes + 64);
      ensure(g.specials, g.specials_bytes,
             static_cast<size_t>(Special::count) * 4 * program_->lanes);
      g.existing = {};
      uint32_t n =
          std::min<uint32_t>(kMaxLanes, launch_->threads - static_cast<uint32_t>(k) * kMaxLanes);
      for (uint32_t lane = 0; lane < n; ++lane) g.existing.set(static_cast<int>(lane));
      fill_specials(g, k);
    }
    g.live = g.existing;
    g.fragments.clear();
    Fragment f;
    f.pc = program_->functions[0].entry;
    f.lanes = g.existing;
    g.fragments.push_back(f);
  }
  fill_block_specials(b);
}

void Executor::fill_specials(Group& g, size_t group_index) {
  const Launch& l = launch_->launch;
  const uint32_t lanes = program_->lanes;
  const uint64_t used = launch_->kernel->program.specials_used;
  auto fill = [&](Special s, auto value) {
    if (!(used >> static_cast<unsigned>(s) & 1)) return;
    auto* at = reinterpret_cast<uint32_t*>(g.specials.get() + static_cast<size_t>(s) * 4 * lanes);
    for (uint32_t lane = 0; lane < lanes; ++lane) at[lane] = static_cast<uint32_t>(value(lane));
  };
  auto same = [&](Special s, uint64_t v) { fill(s, [&](uint32_t) { return v; }); };
  auto thread = [&](uint32_t lane) {
    return static_cast<uint32_t>(group_index) * kMaxLanes + lane;
  };
  fill(Special::tid_x, [&](uint32_t i) { return thread(i) % l.block[0]; });
  fill(Special::tid_y, [&](uint32_t i) { return thread(i) / l.block[0] % l.block[1]; });
  fill(Special::tid_z, [&](uint32_t i) { return thread(i) / l.block[0] / l.block[1]; });
  same(Special::ntid_x, l.block[0]);
  same(Special::ntid_y, l.block[1]);
  same(Special::ntid_z, l.block[2]);
  same(Special::nctaid_x, l.grid[0]);
  same(Special::nctaid_y, l.grid[1]);
  same(Special::nctaid_z, l.grid[2]);
  fill(Special::laneid, [](uint32_t i) { return i % kWarp; });
  fill(Special::warpid, [&](uint32_t i) { return thread(i) / kWarp; });
  same(Special::nwarpid, (launch_->threads + kWarp - 1) / kWarp);
  fill(Special::lanemask_eq, [](uint32_t i) { return 1u << (i % kWarp); });
  fill(Special::lanemask_lt, [](uint32_t i) { return (1u << (i % kWarp)) - 1; });
  fill(Special::lanemask_le, [](uint32_t i) { return (2u << (i % kWarp)) - 1; });
  fill(Special::lanemask_ge, [](uint32_t i) { return ~((1u << (i % kWarp)) - 1); });
  fill(Special::lanemask_gt, [](uint32_t i) { return ~((2u << (i % kWarp)) - 1); });
  same(Special::nsmid, launch_->sm_count);
  same(Special::gridid, 1);
  same(Special::envreg1, launch_->workspace >> 32);
  same(Special::envreg2, launch_->workspace);
  same(Special::zero, 0);
  same(Special::one, 1);
  same(Special::total_smem, launch_->shared_bytes);
  same(Special::dynamic_smem, l.dynamic_shared_bytes);
  same(Special::dynamic_base, launch_->kernel->program.shared_bytes);
}

void Executor::fill_block_specials(Block& b) {
  const uint32_t lanes = program_->lanes;
  const uint64_t used = launch_->kernel->program.specials_used;
  auto same = [&](Special s, uint32_t v) {
    if (!(used >> static_cast<unsigned>(s) & 1)) return;
    for (Group& g : b.groups) {
      auto* at = reinterpret_cast<uint32_t*>(g.specials.get() + static_cast<size_t>(s) * 4 * lanes);
      std::fill(at, at + lanes, v);
    }
  };
  same(Special::ctaid_x, b.ctaid[0]);
  same(Special::ctaid_y, b.ctaid[1]);
  same(Special::ctaid_z, b.ctaid[2]);
  same(Special::smid, launch_->sms[b.index % launch_->sms.size()]);
}

}  // namespace softgpu::simt
