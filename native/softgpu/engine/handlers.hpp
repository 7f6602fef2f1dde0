// The border between the executor and the lane loops, which are compiled for several CPUs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace softgpu::simt {

inline constexpr int kWarp = 32;
inline constexpr int kMaxLanes = 256;

/// The lanes [lo, hi) to compute, multiples of 32. Lanes that are not active may be computed as
/// well: nothing here can trap, and the caller throws their results away.
struct LaneRange {
  int lo = 0;
  int hi = 0;
};

using AluFn = void (*)(void* d, const void* a, const void* b, const void* c, uint64_t imm,
                       LaneRange lanes);

/// What a handler of arithmetic reads and writes; sizes in bytes per lane, 1 for predicates.
struct AluEntry {
  std::string_view key;
  AluFn fn;
  uint8_t dsize;
  uint8_t sizes[3];  ///< of the sources; 0: unused
};

/// Bits of Op::mode: what the FPU's control register must say meanwhile.
enum FpMode : uint8_t {
  kRoundNearest = 0,
  kRoundDown = 1,
  kRoundUp = 2,
  kRoundZero = 3,
  kFlush = 4
};

enum class MemorySpace : uint8_t { generic, global, shared, local, param };

/// A piece of memory that an access may fall into. `offset - base` is what is checked.
struct Window {
  uint64_t base = 0;
  uint64_t size = 0;
  char* host = nullptr;      ///< of `base`
  uint64_t lane_stride = 0;  ///< local memory: each lane has its own
};

class MemoryView;

/// One execution of a load, store or atomic by a group.
struct MemoryAccess {
  const void* address = nullptr;  ///< slot of the address register
  uint32_t address_bytes = 8;
  int64_t offset = 0;
  char* regs[8];                 ///< slots of the data: `count` of them, atomics eight
  const char* second = nullptr;  ///< atomics: the operand; cas: the value to store in `third`
  const char* third = nullptr;
  int count = 1;
  LaneRange lanes;
  const uint32_t* mask = nullptr;  ///< bits of the active lanes, a word per warp
  MemorySpace space = MemorySpace::generic;
  Window* window = nullptr;  ///< the last one hit; kept by the caller
  MemoryView* view = nullptr;
  /// How each warp's addresses relate; known already when an earlier access of the same basic block
  /// had the same address register.
  uint8_t* patterns = nullptr;
  bool patterns_known = false;
  // On failure:
  uint64_t fault_address = 0;
  int fault_lane = 0;
  bool misaligned = false;
};

/// False on a fault, which `access` then describes.
using MemoryFn = bool (*)(MemoryAccess& access);

struct MemoryEntry {
  std::string_view key;
  MemoryFn fn;
};

/// Finds the window that holds [address, address + bytes) or says that there is none. Called by
/// handlers when an access leaves the last window.
bool find_window(MemoryView* view, MemorySpace space, int lane, uint64_t address, uint32_t bytes,
                 Window* window);

/// The arithmetic named by an opcode without noise words, such as "add.f32"; null when unknown.
const AluEntry* find_alu(std::string_view key);
MemoryFn find_memory(std::string_view key);

using BlendFn = void (*)(void* d, const void* s, const uint8_t* mask, LaneRange lanes);
/// Copies the lanes whose mask byte is nonzero; `bytes` is 1, 2, 4 or 8.
BlendFn find_blend(unsigned bytes);

/// "x86-64-v3" or "baseline".
std::string_view handler_isa();

}  // namespace softgpu::simt
