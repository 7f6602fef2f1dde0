// The allocator of addresses, against a model that knows every byte.
// SPDX-License-Identifier: Apache-2.0
#include "worker/blocks.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace outboard::worker {
namespace {

TEST_CASE("an allocation is aligned, and the smallest free range is taken") {
  Blocks blocks(512);
  blocks.add_region({0x10000, 0x4000});
  const auto first = blocks.allocate(1);
  const auto second = blocks.allocate(0x1000);
  const auto third = blocks.allocate(0x200);
  REQUIRE(first);
  REQUIRE(second);
  REQUIRE(third);
  CHECK(first->bytes == 512);
  CHECK(second->base == first->base + 512);
  CHECK(!blocks.release(*first));
  const auto again = blocks.allocate(100);
  REQUIRE(again);
  CHECK(again->base == first->base);
}

TEST_CASE(
    "a region that is wholly free is offered for giving back, and free ranges do not cross "
    "regions") {
  Blocks blocks(512);
  blocks.add_region({0x10000, 0x1000});
  blocks.add_region({0x11000, 0x1000});
  CHECK(!blocks.allocate(0x1800));
  const auto one = blocks.allocate(0x1000);
  const auto other = blocks.allocate(0x1000);
  REQUIRE(one);
  REQUIRE(other);
  CHECK(!blocks.allocate(1));
  const auto region = blocks.release(*one);
  REQUIRE(region);
  CHECK(region->base == one->base);
  CHECK(region->bytes == 0x1000);
  blocks.remove_region(*region);
  CHECK(!blocks.allocate(1));
}

TEST_CASE("sizes that cannot be are refused") {
  Blocks blocks(512);
  blocks.add_region({0x10000, 0x1000});
  CHECK(!blocks.allocate(0));
  CHECK(!blocks.allocate(UINT64_MAX));
  CHECK(!blocks.allocate(UINT64_MAX - 511));
}

TEST_CASE("random operations never overlap and lose nothing") {
  constexpr unsigned seed = 4711;
  constexpr uint64_t region_bytes = 1 << 16;
  INFO("seed ", seed);
  std::mt19937 random(seed);  // NOLINT(bugprone-random-generator-seed): the same every time
  Blocks blocks(512);
  std::vector<Range> regions;
  std::vector<Range> taken;
  uint64_t next_region = 1 << 20;
  for (int step = 0; step < 20000; ++step) {
    if (random() % 2 == 0 || taken.empty()) {
      const uint64_t bytes = 1 + random() % (random() % 4 == 0 ? region_bytes : 4096);
      auto range = blocks.allocate(bytes);
      if (!range) {
        regions.push_back({next_region, region_bytes});
        blocks.add_region(regions.back());
        next_region += region_bytes;  // adjacent: must not be joined
        range = blocks.allocate(bytes);
      }
      REQUIRE(range);
      REQUIRE(range->base % 512 == 0);
      REQUIRE(range->bytes >= bytes);
      for (const Range& other : taken) {
        REQUIRE(
            (range->base + range->bytes <= other.base || other.base + other.bytes <= range->base));
      }
      const bool inside = std::any_of(regions.begin(), regions.end(), [&](const Range& region) {
        return range->base >= region.base &&
               range->base + range->bytes <= region.base + region.bytes;
      });
      REQUIRE(inside);
      taken.push_back(*range);
    } else {
      const size_t which = random() % taken.size();
      const Range range = taken[which];
      taken.erase(taken.begin() + static_cast<ptrdiff_t>(which));
      if (const auto region = blocks.release(range)) {
        const bool used = std::any_of(taken.begin(), taken.end(), [&](const Range& other) {
          return other.base >= region->base && other.base < region->base + region->bytes;
        });
        REQUIRE(!used);
        blocks.remove_region(*region);
        std::erase_if(regions, [&](const Range& other) { return other.base == region->base; });
      }
    }
    uint64_t used = 0;
    for (const Range& range : taken) used += range.bytes;
    REQUIRE(used + blocks.free_bytes() == regions.size() * region_bytes);
  }
}

}  // namespace
}  // namespace outboard::worker
