// The decoded form of a kernel: micro-operations over lane-wide slots.
// SPDX-License-Identifier: Apache-2.0
//
// Each register is a slot that holds its value for all lanes of a group (at most 256 threads of one
// block), next to each other. An operand is a slot reference: its low two bits say the region, the
// rest is a byte offset per lane as the decoder writes it, and a byte offset once the program is
// bound to a lane count (bind_program). Immediates are slots too, so handlers know only pointers.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine.hpp"
#include "handlers.hpp"

namespace softgpu::simt {

using SlotRef = uint32_t;
inline constexpr SlotRef kNoSlot = ~0u;

enum Region : uint32_t {
  kRegisters = 0,  ///< the group's register file, from the running frame on
  kConstants = 1,  ///< immediates, filled once per program
  kSpecials = 2,   ///< %tid and the like, filled per group and block
};

inline constexpr SlotRef slot(Region region, uint32_t offset) { return offset << 2 | region; }

enum class OpKind : uint8_t {
  alu,       ///< fn(d, a, b, c)
  alu_mode,  ///< the same with `mode` in the FPU's control register
  leader,    ///< a label: fragments merge here
  branch,
  branch_table,
  call,
  call_indirect,
  ret,
  exit,
  load,
  store,
  atomic,
  async_copy,
  fence,
  barrier,
  warp_sync,
  shuffle,
  vote,
  match,
  redux,
  active_mask,
  elect,
  mbarrier,
  texture,  ///< these four: vectors[target] is four values, then up to four places
  texture_query,
  surface_load,
  surface_store,
  clock,
  sleep,
  trap,
  frame_address,    ///< d = local frame's offset + imm
  generic_address,  ///< cvta of a shared or local address: d = a + base
  space_offset,     ///< cvta.to of the same
  is_space,
};

/// Whether Op::target is an entry of Program::vectors whose slots are used in other ways than those
/// of loads and stores.
inline bool has_mixed_vector(OpKind kind) {
  return kind == OpKind::shuffle || kind == OpKind::atomic || kind == OpKind::texture ||
         kind == OpKind::texture_query || kind == OpKind::surface_load ||
         kind == OpKind::surface_store;
}

enum class VoteKind : uint8_t { all, any, uni, ballot };
enum class ShuffleKind : uint8_t { up, down, bfly, idx };
enum class BarrierKind : uint8_t { sync, arrive, red_popc, red_and, red_or };
enum class MbarrierKind : uint8_t { init, inval, arrive, arrive_drop, test_wait };
enum class ClockKind : uint8_t { cycles, nanoseconds };

/// One micro-operation. What `target` means depends on the kind: a pc, or an index into one of the
/// program's side tables.
struct Op {
  OpKind kind = OpKind::alu;
  uint8_t dsize = 0;    ///< bytes per lane of d
  uint8_t mode = 0;     ///< FpMode bits
  uint8_t variant = 0;  ///< VoteKind, BarrierKind and so on
  bool predicate_negated = false;
  bool leads = false;       ///< load/store: the access polls memory (volatile, acquire, atomic)
  uint8_t count = 1;        ///< registers of a vector access
  uint8_t memo = 0;         ///< load/store: which of the executor's pattern memos; 0 is nobody's
  bool memo_known = false;  ///< the memo was filled earlier in this basic block
  MemorySpace space = MemorySpace::generic;
  SlotRef predicate = kNoSlot;
  SlotRef d = kNoSlot, a = kNoSlot, b = kNoSlot, c = kNoSlot;
  uint32_t target = 0;
  uint32_t asize = 0;         ///< bytes of a register that holds an address
  uint32_t access_bytes = 0;  ///< load/store: of all elements of a lane
  uint32_t line = 0;
  union {
    AluFn alu;
    MemoryFn memory = nullptr;
  };
  uint64_t imm = 0;
};

struct ParamCopy {
  uint32_t from = 0, to = 0, bytes = 0;  ///< offsets in the two local frames
};

enum class Builtin : uint8_t { none, vprintf, malloc, free, assertfail, set_condition };

struct CallSite {
  int caller = 0;
  int function = -1;  ///< index into Program::functions; -1: indirect, through slot a
  Builtin builtin = Builtin::none;
  std::vector<uint32_t> args;  ///< offsets of the arguments in the caller's local frame
  std::vector<uint32_t> arg_bytes;
  std::vector<uint32_t> results;
  std::vector<uint32_t> result_bytes;
};

/// Where a function's code and formal parameters are.
struct FunctionCode {
  std::string name;
  uint32_t number = 0;                    ///< makes its address
  uint32_t entry = 0;                     ///< pc
  uint32_t frame_bytes = 0;               ///< of registers, per lane
  uint32_t local_bytes = 0;               ///< per lane
  std::vector<uint32_t> params, results;  ///< offsets in its local frame
  std::vector<uint32_t> param_bytes, result_bytes;
  SlotRef return_pc = kNoSlot;  ///< hidden registers, per lane: where to go back to
  SlotRef return_frame = kNoSlot;
  SlotRef return_local = kNoSlot;
  SlotRef return_site = kNoSlot;
};

/// Slots of the special registers.
enum class Special : uint8_t {
  tid_x,
  tid_y,
  tid_z,
  ntid_x,
  ntid_y,
  ntid_z,
  ctaid_x,
  ctaid_y,
  ctaid_z,
  nctaid_x,
  nctaid_y,
  nctaid_z,
  laneid,
  warpid,
  nwarpid,
  lanemask_eq,
  lanemask_le,
  lanemask_lt,
  lanemask_ge,
  lanemask_gt,
  smid,
  nsmid,
  gridid,
  envreg1,
  envreg2,
  zero,
  one,
  total_smem,
  dynamic_smem,
  dynamic_base,
  count
};

inline constexpr uint32_t kFunctionStride = 16;
/// Function addresses lie where no memory can be, so a wild jump is told from a wild load.
inline constexpr uint64_t kFunctionBase = 0x00f0'0000'0000'0000;

struct ConstantSlot {
  uint32_t offset = 0;  ///< per lane
  uint8_t bytes = 0;
  uint64_t bits = 0;
};

struct Program {
  std::vector<Op> ops;
  std::vector<ConstantSlot> constants;
  uint32_t constant_bytes = 0;          ///< per lane
  std::vector<FunctionCode> functions;  ///< the entry first
  std::vector<CallSite> calls;
  std::vector<std::vector<SlotRef>> vectors;  ///< registers of vector accesses
  std::vector<std::vector<uint32_t>> jump_tables;
  uint32_t shared_bytes = 0;
  uint32_t local_bytes = 0;    ///< per lane, of the deepest chain of calls
  uint64_t specials_used = 0;  ///< a bit for each Special
  bool uses_calls = false;
  bool recursive = false;  ///< the depth of calls is not known
};

/// A program whose slot references are byte offsets for `lanes` lanes.
struct BoundProgram {
  uint32_t lanes = 0;
  std::vector<Op> ops;
  std::vector<std::vector<SlotRef>> vectors;
  std::vector<FunctionCode> functions;
  std::unique_ptr<char[], void (*)(char*)> constants{nullptr, nullptr};
};

/// Renames the registers of the last function, whose code begins at `begin`. `sizes` has the bytes
/// of all its slots.
void share_slots(Program* program, uint32_t begin,
                 const std::unordered_map<SlotRef, uint32_t>& sizes);

/// Loads and stores through one register in one basic block share what is found out about its
/// lanes.
inline constexpr unsigned kMemos = 8;
void share_patterns(Program* program);

std::unique_ptr<BoundProgram> bind_program(const Program& program, uint32_t lanes);

}  // namespace softgpu::simt

namespace softgpu {

class Kernel {
 public:
  KernelInfo info;
  simt::Program program;

  /// The program for 32, 64, 128 or 256 lanes; made on first use.
  const simt::BoundProgram& bound(uint32_t lanes) const;

 private:
  mutable std::mutex mutex_;
  mutable std::unique_ptr<simt::BoundProgram> bound_[4];
};

}  // namespace softgpu
