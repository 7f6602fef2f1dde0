// A handle is known or refused, whatever pointer it is, and names of reused slots never repeat.
// SPDX-License-Identifier: Apache-2.0
#include "client/slab.hpp"

#include <doctest/doctest.h>

#include <set>

namespace {

struct Thing {
  outboard::client::SlotHead head;
  uint64_t value = 7;
};
constinit outboard::client::Slab<Thing, 64> things;

}  // namespace

TEST_CASE("live handles are found, all others are refused") {
  Thing* thing = things.take();
  REQUIRE(thing != nullptr);
  CHECK(things.find(thing) == thing);
  CHECK(things.find(nullptr) == nullptr);
  CHECK(things.find(&things) == nullptr);
  CHECK(things.find(reinterpret_cast<const char*>(thing) + 1) == nullptr);
  CHECK(things.find(thing + 1) == nullptr);
  CHECK(things.find(reinterpret_cast<const void*>(~uint64_t{0})) == nullptr);
  CHECK(things.find_id(thing->head.id()) == thing);
  CHECK(things.find_id(thing->head.id() + (uint64_t{1} << 32)) == nullptr);
  things.give(thing);
  CHECK(things.find(thing) == nullptr);
}

TEST_CASE("a slot used again has another name and fresh content") {
  std::set<uint64_t> names;
  for (int i = 0; i < 10; ++i) {
    Thing* thing = things.take();
    CHECK(thing->value == 7);
    CHECK(names.insert(thing->head.id()).second);
    thing->value = 8;
    things.give(thing);
  }
}

TEST_CASE("the bound is kept") {
  std::set<Thing*> taken;
  while (Thing* thing = things.take()) taken.insert(thing);
  CHECK(taken.size() == 63);  // index 0 is no object
  for (Thing* thing : taken) things.give(thing);
}
