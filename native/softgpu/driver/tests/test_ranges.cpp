// The allocator of address ranges.
// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <map>
#include <random>

#include "ranges.hpp"

using softgpu::RangeAllocator;

TEST_CASE("ranges that are given back merge with their neighbours") {
  RangeAllocator ranges;
  ranges.release(0x1000, 0x1000);
  auto a = ranges.allocate(0x400, 0x100);
  auto b = ranges.allocate(0x400, 0x100);
  auto c = ranges.allocate(0x800, 0x100);
  REQUIRE(a);
  REQUIRE(b);
  REQUIRE(c);
  CHECK(!ranges.allocate(1, 1));
  ranges.release(*a, 0x400);
  ranges.release(*c, 0x800);
  auto merged = ranges.release(*b, 0x400);
  CHECK(merged.first == 0x1000);
  CHECK(merged.second == 0x1000);
  CHECK(ranges.allocate(0x1000, 0x1000) == 0x1000);
}

TEST_CASE("random allocations never overlap and keep their alignment") {
  constexpr unsigned kSeed = 20;
  MESSAGE("seed ", kSeed);
  std::mt19937 random(kSeed);
  RangeAllocator ranges;
  ranges.release(1 << 20, 1 << 20);
  std::map<uint64_t, uint64_t> held;
  for (int i = 0; i < 20000; ++i) {
    if (random() % 2 == 0) {
      uint64_t size = 1 + random() % 5000;
      uint64_t alignment = uint64_t{1} << (random() % 10);
      auto base = ranges.allocate(size, alignment);
      if (!base) continue;
      REQUIRE(*base % alignment == 0);
      auto next = held.lower_bound(*base);
      if (next != held.end()) REQUIRE(*base + size <= next->first);
      if (next != held.begin()) REQUIRE(std::prev(next)->first + std::prev(next)->second <= *base);
      held[*base] = size;
    } else if (!held.empty()) {
      auto gone = held.begin();
      std::advance(gone, static_cast<long>(random() % held.size()));
      ranges.release(gone->first, gone->second);
      held.erase(gone);
    }
  }
  for (auto [base, size] : held) ranges.release(base, size);
  CHECK(ranges.allocate(1 << 20, 1) == 1 << 20);
}
