// Runs blocks of a kernel on one host thread.
// SPDX-License-Identifier: Apache-2.0
//
// A block is a few groups of up to 256 lanes. In a group, lanes that are at the same place form a
// fragment; one fragment runs at a time. The one with the lowest pc runs first and fragments that
// meet at a label merge, so lanes reconverge without any analysis of the code. Since that alone
// would let a spin loop starve the lanes it waits for, a fragment that has branched backward often
// yields to the one furthest ahead. Blocks are plain data, so that a block which waits for another
// can be left and taken up again.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "lane_set.hpp"
#include "memory_view.hpp"
#include "program.hpp"

namespace softgpu::simt {

/// Micro-operations of backward branches that a visit of a group may spend before others get a
/// turn.
inline constexpr int64_t kBudget = 400'000;
/// An access that polls memory costs this many, so a spinning block soon makes way.
inline constexpr int64_t kPollCost = 400;

class DeviceHeap;
class PrintfSink;

/// What all executors of one launch share.
struct LaunchState {
  const Kernel* kernel = nullptr;
  const BoundProgram* program = nullptr;
  Launch launch;
  std::vector<uint64_t> params;  ///< a copy, aligned
  uint32_t threads = 0;          ///< per block
  uint32_t shared_bytes = 0;
  uint64_t blocks = 0;
  uint64_t workspace = 0;  ///< of grid-wide barriers
  uint32_t sm_count = 8;
  std::vector<uint32_t> sms;  ///< those that the blocks run on
  DeviceHeap* heap = nullptr;
  PrintfSink* printf = nullptr;
  std::atomic<uint64_t> next_block{0};
  std::atomic<bool> stop{false};
  const std::atomic<bool>* cancelled = nullptr;
  std::chrono::steady_clock::time_point deadline{};
  bool has_deadline = false;
  std::mutex mutex;
  Outcome outcome;  ///< the first fault

  void fail(Fault fault, std::string detail);
};

struct Frame {
  uint32_t regs = 0;   ///< bytes into the group's register file
  uint32_t local = 0;  ///< bytes into each lane's local memory
  bool operator==(const Frame&) const = default;
};

enum class Waiting : uint8_t { no, barrier, warp };

struct Fragment {
  uint32_t pc = 0;
  Frame frame;
  LaneBits lanes;
  Waiting waiting = Waiting::no;
  bool forced = false;  ///< its warp instruction no longer waits for absent lanes
  uint8_t barrier = 0;
  uint32_t backward = 0;  ///< branches since it last was alone
};

struct AlignedFree {
  void operator()(char* p) const { std::free(p); }
};
using AlignedBytes = std::unique_ptr<char[], AlignedFree>;
AlignedBytes aligned_bytes(size_t bytes);

struct Group {
  AlignedBytes regs;
  size_t regs_bytes = 0;
  AlignedBytes specials;
  size_t specials_bytes = 0;
  LaneBits existing;
  LaneBits live;
  std::vector<Fragment> fragments;
};

struct BarrierState {
  uint32_t arrived = 0;
  uint32_t expected = 0;  ///< 0: all living threads
  uint32_t popc = 0;
  bool all = true;
  bool any = false;
  bool reduces = false;
};

struct Block {
  bool active = false;
  uint64_t index = 0;
  uint32_t ctaid[3] = {};
  std::vector<Group> groups;
  size_t next_group = 0;
  AlignedBytes shared;
  size_t shared_bytes = 0;
  AlignedBytes local;
  size_t local_bytes = 0;
  BarrierState barriers[16];
  uint32_t live = 0;
};

enum class Progress { done, yielded, failed };

class Executor {
 public:
  Executor() = default;
  /// Runs blocks until there are none left. `worker` of `workers` take them in order.
  void run(LaunchState& launch, AddressSpace& space, unsigned worker, unsigned workers);

 private:
  // executor.cpp
  void prepare(LaunchState& launch);
  void start_block(Block& b, uint64_t index);
  void fill_specials(Group& g, size_t group_index);
  void fill_block_specials(Block& b);
  bool should_stop();
  Progress run_block(Block& b);
  bool release_barriers(Block& b);
  bool force_warps(Block& b);
  /// Runs ready fragments until none is or the budget is spent.
  Progress run_group(Block& b, Group& g);
  Progress interpret();
  bool pick();
  void park(uint32_t pc);
  void enter(const Fragment& f);
  bool merge_at(uint32_t pc);
  bool at_leader(uint32_t pc);
  bool branch(const Op& op, uint32_t* pc);
  bool branch_table(const Op& op, uint32_t* pc);
  void set_lanes(const LaneBits& lanes);
  LaneSet& predicated(const Op& op);
  void alu_masked(const Op& op, LaneSet& set);
  void alu_mode(const Op& op, LaneSet& set);
  bool memory(const Op& op, LaneSet& set);
  bool async_copy(const Op& op, LaneSet& set);
  bool mbarrier(const Op& op, LaneSet& set);
  void retire(const LaneBits& lanes);

  // execute_textures.cpp
  struct NamedTexture {
    uint64_t name = 0;
    std::shared_ptr<const TextureView> view;
  };
  const TextureView* texture_named(const Op& op, int lane, NamedTexture* last);
  bool texture(const Op& op, LaneSet& set);
  bool surface(const Op& op, LaneSet& set);

  void give(const Op& op, const void* values, LaneSet& set);
  void other(const Op& op, LaneSet& set);
  void generic_address(const Op& op, LaneSet& set);

  // execute_calls.cpp
  bool call(const Op& op, uint32_t pc, const LaneSet& set);
  bool call_indirect(const Op& op, uint32_t pc, const LaneSet& set);
  bool enter_function(const CallSite& site, uint32_t site_index, int function, uint32_t pc,
                      const LaneBits& lanes);
  bool builtin(const CallSite& site, const LaneSet& set);
  void ret(const Op& op, const LaneSet& set);
  bool copy_results(const FunctionCode& code, const CallSite& site, Frame from, Frame to,
                    const LaneBits& lanes);
  bool reserve_registers(size_t bytes);
  char* local_at(int lane, uint32_t offset, uint32_t bytes);
  bool read_text(uint64_t address, std::string* out, size_t width = 1);

  // execute_warp.cpp
  /// Lanes that may go on with this warp-wide instruction; the others have been parked.
  LaneBits gather_warps(const Op& op, uint32_t pc, const LaneSet& set, SlotRef mask);
  bool warp(const Op& op, uint32_t* pc, LaneSet& set);
  void shuffle(const Op& op, const LaneBits& lanes);
  void vote(const Op& op, const LaneBits& lanes);
  void match(const Op& op, const LaneBits& lanes);
  void redux(const Op& op, const LaneBits& lanes);
  void elect(const Op& op, const LaneBits& lanes);

  // execute_barrier.cpp
  bool barrier(const Op& op, uint32_t pc, const LaneSet& set, bool* waits);

  char* at(SlotRef s) { return base_[s & 3] + (s & ~3u); }
  template <class T>
  T* lanes_of(SlotRef s) {
    return reinterpret_cast<T*>(at(s));
  }
  char* at_lane(SlotRef s, int lane, uint32_t bytes) {
    return at(s) + static_cast<size_t>(lane) * bytes;
  }
  bool fault(Fault f, const Op& op, int lane, const std::string& what);
  bool memory_fault(const Op& op, const MemoryAccess& m);
  std::string place_of(int lane) const;

  LaunchState* launch_ = nullptr;
  const BoundProgram* program_ = nullptr;
  const Op* ops_ = nullptr;
  MemoryView view_;
  std::vector<std::unique_ptr<Block>> slots_;  ///< resident blocks; kept from launch to launch
  unsigned worker_ = 0;

  // The running fragment.
  Block* block_ = nullptr;
  Group* group_ = nullptr;
  Fragment now_;
  LaneSet active_;
  LaneSet predicated_;
  char* base_[4] = {};
  uint8_t patterns_[kMemos][kWarps] = {};
  int64_t budget_ = 0;
  bool hurry_ = false;  ///< the guard against livelock chose this fragment
  alignas(64) char scratch_[kMaxLanes * 8];
};

}  // namespace softgpu::simt
