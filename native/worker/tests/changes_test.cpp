// What changed in memory that both sides keep travels, and nothing else.
// SPDX-License-Identifier: Apache-2.0
#include "wire/changes.hpp"

#include <doctest/doctest.h>

#include <random>

namespace outboard::wire {
namespace {

using Bytes = std::vector<std::byte>;

TEST_CASE("both sides keep what they wrote to different bytes of one block") {
  Bytes here(200), there(200), known_here(200), known_there(200);
  here[70] = std::byte{7};
  there[71] = std::byte{8};
  Bytes records;
  CHECK(find_changes(here, known_here.data(), 0, &records) == 200);
  CHECK(records.size() == change_record_bytes);
  CHECK(apply_changes(records, there, known_there.data()));
  records.clear();
  CHECK(find_changes(there, known_there.data(), 0, &records) == 200);
  CHECK(apply_changes(records, here, known_here.data()));
  CHECK(here == there);
  CHECK(here[70] == std::byte{7});
  CHECK(here[71] == std::byte{8});
  records.clear();
  CHECK(find_changes(here, known_here.data(), 0, &records) == 200);
  CHECK(records.empty());
}

TEST_CASE("any changes of memory of any length arrive, in pieces") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  for (const size_t bytes : {1UL, 63UL, 64UL, 4097UL, 1UL << 20}) {
    CAPTURE(bytes);
    Bytes here(bytes), there(bytes), known_here(bytes), known_there(bytes);
    for (std::byte& one : here) {
      if (random() % 3 == 0) one = static_cast<std::byte>(random());
    }
    here.back() = std::byte{1};
    for (uint64_t offset = 0; offset < bytes;) {
      Bytes records;
      const uint64_t next = find_changes(here, known_here.data(), offset, &records);
      CHECK(next > offset);
      CHECK(records.size() <= max_changes * change_record_bytes);
      REQUIRE(apply_changes(records, there, known_there.data()));
      offset = next;
    }
    CHECK(there == here);
    CHECK(known_there == here);
  }
}

TEST_CASE("records that name no memory are refused") {
  Bytes memory(100), known(100);
  Bytes records(change_record_bytes);
  records[0] = std::byte{128};
  CHECK(!apply_changes(records, memory, known.data()));
  records[0] = std::byte{1};
  CHECK(!apply_changes(records, memory, known.data()));
  records.pop_back();
  CHECK(!apply_changes(records, memory, known.data()));
}

}  // namespace
}  // namespace outboard::wire
