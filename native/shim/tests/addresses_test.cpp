// Every address belongs to one range or none.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/addresses.hpp"

#include <doctest/doctest.h>

using namespace outboard::shim;

namespace {

Range device_range(uint64_t base, uint64_t bytes) {
  Range range;
  range.base = base;
  range.bytes = bytes;
  return range;
}

}  // namespace

TEST_CASE("ranges are found by any address within, and only by those") {
  Addresses table;
  Range found;
  REQUIRE(table.add(device_range(0x1000, 0x100)));
  REQUIRE(table.add(device_range(0x1100, 0x100)));
  CHECK(table.find(0x10ff, &found));
  CHECK(found.base == 0x1000);
  CHECK(table.find(0x1100, &found));
  CHECK(found.base == 0x1100);
  CHECK_FALSE(table.find(0xfff, &found));
  CHECK_FALSE(table.find(0x1200, &found));
}

TEST_CASE("overlapping ranges are refused") {
  Addresses table;
  REQUIRE(table.add(device_range(0x1000, 0x100)));
  CHECK_FALSE(table.add(device_range(0x1000, 1)));
  CHECK_FALSE(table.add(device_range(0x10ff, 1)));
  CHECK_FALSE(table.add(device_range(0xfff, 2)));
  CHECK(table.add(device_range(0xfff, 1)));
  CHECK(table.overlaps(0x10ff, 5));
  CHECK_FALSE(table.overlaps(0x1100, 5));
}

TEST_CASE("a copy must lie within one range, also where lengths wrap") {
  Addresses table;
  Range found;
  REQUIRE(table.add(device_range(0x1000, 0x100)));
  CHECK(table.is_device(0x1000, 0x100, &found));
  CHECK_FALSE(table.is_device(0x1001, 0x100, &found));
  CHECK_FALSE(table.is_device(0x1001, ~uint64_t{0}, &found));
}

TEST_CASE("host ranges are pinned memory, not device memory") {
  Addresses table;
  Range range = device_range(0x1000, 0x100), found;
  range.kind = MemoryKind::registered;
  REQUIRE(table.add(range));
  CHECK(table.is_pinned(reinterpret_cast<void*>(0x1010), 0xf0));
  CHECK_FALSE(table.is_pinned(reinterpret_cast<void*>(0x1010), 0xf1));
  CHECK_FALSE(table.is_device(0x1010, 1, &found));
  CHECK_FALSE(table.remove(0x1000, MemoryKind::device, MemoryKind::pool, nullptr));
  CHECK(table.remove(0x1000, MemoryKind::registered, MemoryKind::registered, nullptr));
  CHECK_FALSE(table.find(0x1000, &found));
}
