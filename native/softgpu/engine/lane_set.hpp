// Sets of lanes of a group, a bit each.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "handlers.hpp"

namespace softgpu::simt {

inline constexpr int kWarps = kMaxLanes / kWarp;

struct LaneBits {
  std::array<uint32_t, kWarps> word{};

  bool any() const {
    uint32_t all = 0;
    for (uint32_t w : word) all |= w;
    return all != 0;
  }
  int count() const {
    int n = 0;
    for (uint32_t w : word) n += std::popcount(w);
    return n;
  }
  int first() const {
    for (int w = 0; w < kWarps; ++w) {
      if (word[w]) return w * kWarp + std::countr_zero(word[w]);
    }
    return -1;
  }
  bool has(int lane) const { return word[lane / kWarp] >> (lane % kWarp) & 1; }
  void set(int lane) { word[lane / kWarp] |= 1u << (lane % kWarp); }
  bool operator==(const LaneBits&) const = default;
  friend LaneBits operator&(LaneBits a, const LaneBits& b) {
    for (int w = 0; w < kWarps; ++w) a.word[w] &= b.word[w];
    return a;
  }
  friend LaneBits operator|(LaneBits a, const LaneBits& b) {
    for (int w = 0; w < kWarps; ++w) a.word[w] |= b.word[w];
    return a;
  }
  LaneBits without(const LaneBits& b) const {
    LaneBits a = *this;
    for (int w = 0; w < kWarps; ++w) a.word[w] &= ~b.word[w];
    return a;
  }
};

/// Calls f(lane) for each lane, in order.
template <class F>
void each_lane(const LaneBits& set, F f) {
  for (int w = 0; w < kWarps; ++w) {
    for (uint32_t rest = set.word[w]; rest; rest &= rest - 1) f(w * kWarp + std::countr_zero(rest));
  }
}

/// Lanes to execute on, in the forms that handlers want.
struct LaneSet {
  LaneBits bits;
  LaneRange range;
  /// Every living lane of the range is in the set, so that arithmetic needs no blending: what the
  /// dead ones get does not matter.
  bool full = false;
  bool expanded = false;
  alignas(64) uint8_t bytes[kMaxLanes];

  void assign(const LaneBits& set, const LaneBits& living) {
    bits = set;
    expanded = false;
    int lo = 0, hi = kWarps;
    while (lo < hi && set.word[lo] == 0) ++lo;
    while (hi > lo && set.word[hi - 1] == 0) --hi;
    range = {lo * kWarp, hi * kWarp};
    uint32_t missing = 0;
    for (int w = lo; w < hi; ++w) missing |= living.word[w] & ~set.word[w];
    full = missing == 0;
  }
  /// A byte per lane, 0 or 1.
  const uint8_t* mask() {
    if (!expanded) {
      for (int i = range.lo; i < range.hi; ++i) {
        bytes[i] = static_cast<uint8_t>(bits.word[i / kWarp] >> (i % kWarp) & 1);
      }
      expanded = true;
    }
    return bytes;
  }
};

/// The lanes of `within` whose predicate byte is 1 (or 0 when negated).
LaneBits predicate_bits(const uint8_t* predicate, bool negated, const LaneSet& within);

}  // namespace softgpu::simt
