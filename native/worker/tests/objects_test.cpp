// Object tables: what may be created where, and what a stale id finds.
// SPDX-License-Identifier: Apache-2.0
#include "worker/objects.hpp"

#include <doctest/doctest.h>

namespace outboard::worker {
namespace {

uint64_t id(uint32_t generation, uint32_t index) { return uint64_t{generation} << 32 | index; }

TEST_CASE("an object is found by its id alone") {
  ObjectTable<int> table;
  REQUIRE(table.insert(id(1, 7), std::make_shared<int>(42)) == Insert::ok);
  REQUIRE(table.find(id(1, 7)));
  CHECK(*table.find(id(1, 7)) == 42);
  CHECK(table.at(7) == table.find(id(1, 7)));
  CHECK(!table.find(id(2, 7)));
  CHECK(!table.find(id(0, 7)));
  CHECK(!table.find(id(1, 8)));
  CHECK(!table.find(id(1, 5000)));
  CHECK(!table.find(0));
}

TEST_CASE("a slot is used again under a higher generation only") {
  ObjectTable<int> table;
  REQUIRE(table.insert(id(3, 0), std::make_shared<int>(1)) == Insert::ok);
  CHECK(table.insert(id(4, 0), std::make_shared<int>(2)) == Insert::living);
  CHECK(*table.remove(id(3, 0)) == 1);
  CHECK(!table.remove(id(3, 0)));
  CHECK(table.insert(id(3, 0), std::make_shared<int>(2)) == Insert::stale_generation);
  CHECK(table.insert(id(2, 0), std::make_shared<int>(2)) == Insert::stale_generation);
  CHECK(table.insert(id(9, 0), std::make_shared<int>(2)) == Insert::ok);
  CHECK(!table.find(id(3, 0)));
  CHECK(table.living() == 1);
}

TEST_CASE("indexes beyond the bound and generation zero are refused") {
  ObjectTable<int> table;
  CHECK(table.insert(id(1, wire::max_objects), std::make_shared<int>(1)) == Insert::beyond_bound);
  CHECK(table.insert(id(1, UINT32_MAX), std::make_shared<int>(1)) == Insert::beyond_bound);
  CHECK(table.insert(id(0, 3), std::make_shared<int>(1)) == Insert::beyond_bound);
  CHECK(table.insert(id(1, wire::max_objects - 1), std::make_shared<int>(1)) == Insert::ok);
}

TEST_CASE("what goes with its context leaves free slots") {
  ObjectTable<int> table;
  for (uint32_t i = 0; i < 10; ++i) {
    REQUIRE(table.insert(id(1, i), std::make_shared<int>(i)) == Insert::ok);
  }
  table.remove_where([](int value) { return value % 2 == 0; });
  CHECK(table.living() == 5);
  CHECK(!table.find(id(1, 4)));
  CHECK(table.find(id(1, 5)));
  CHECK(table.may_insert(id(2, 4)) == Insert::ok);
}

}  // namespace
}  // namespace outboard::worker
