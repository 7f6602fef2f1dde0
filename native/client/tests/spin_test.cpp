// Polling goes on while it pays, and where cores are plenty.
// SPDX-License-Identifier: Apache-2.0
#include "base/spin.hpp"

#include <doctest/doctest.h>

using outboard::Spin;

namespace {

// How many rounds are not polled until the next one is.
int skipped(Spin& spin) {
  int count = 0;
  while (spin.begin() == 0) ++count;
  return count;
}

}  // namespace

TEST_CASE("on two cores rounds polled in vain become rare, and one that paid ends that") {
  Spin spin(2);
  CHECK(skipped(spin) == 0);
  for (const int expected : {1, 3, 7, 15, 31, 63, 127, 127}) {
    spin.end(false);
    CHECK(skipped(spin) == expected);
  }
  spin.end(true);
  CHECK(skipped(spin) == 0);
}

TEST_CASE("one core is never polled on, and many always") {
  Spin one(1), many(4);
  CHECK(one.begin() == 0);
  for (int round = 0; round < 5; ++round) {
    CHECK(many.begin() == 50'000);
    many.end(false);
  }
}
