// Streams count as complete only when the bytes of their earlier copies are in place.
// SPDX-License-Identifier: Apache-2.0
#include "client/copies.hpp"

#include <doctest/doctest.h>

#include <array>
#include <vector>

using namespace outboard::client;

namespace {

uint64_t issue(Copies* copies, StreamProgress* stream, void* to, uint64_t bytes) {
  uint64_t id = 0;
  const Result result = copies->issue(stream, to, bytes, &id, [&](uint64_t, uint64_t* count) {
    *count = ++stream->issued;
    return result::success;
  });
  CHECK(result == result::success);
  return id;
}

}  // namespace

TEST_CASE("a report waits for the bytes of the copies that it covers") {
  bool dropped = false;
  Copies copies;
  StreamProgress stream;
  std::array<std::byte, 8> to{};
  ++stream.issued;
  const uint64_t copy = issue(&copies, &stream, to.data(), 8);
  ++stream.issued;
  copies.report(&stream, 3);
  CHECK(stream.complete == 1);
  REQUIRE(copies.place(copy, 0, 4, &dropped) == to.data());
  copies.arrived(copy, 4);
  CHECK(stream.complete == 1);
  REQUIRE(copies.place(copy, 4, 4, &dropped) == to.data() + 4);
  copies.arrived(copy, 4);
  CHECK(stream.complete == 3);
  CHECK(copies.wait(&stream, 3));
}

TEST_CASE("bytes go only where they were asked for") {
  bool dropped = false;
  Copies copies;
  StreamProgress stream;
  std::array<std::byte, 8> to{};
  const uint64_t copy = issue(&copies, &stream, to.data(), 8);
  CHECK(copies.place(copy, 0, 9, &dropped) == nullptr);
  CHECK(copies.place(copy, 4, 4, &dropped) == nullptr);  // out of order
  CHECK(copies.place(copy + 1, 0, 4, &dropped) == nullptr);
  CHECK(copies.place(0, 0, 4, &dropped) == nullptr);
  CHECK(copies.place(copy, ~uint64_t{0}, 2, &dropped) == nullptr);
  const std::vector<std::byte> wrong(7);
  CHECK_FALSE(copies.deliver(copy, wrong));
  CHECK_FALSE(copies.deliver(uint64_t{99} << 20, wrong));
  const std::vector<std::byte> right(8, std::byte{5});
  CHECK(copies.deliver(copy, right));
  CHECK(to[7] == std::byte{5});
  CHECK_FALSE(dropped);
  CHECK(copies.place(copy, 0, 4, &dropped) == nullptr);  // it is over
  CHECK(dropped);
}

TEST_CASE("a cancelled copy holds nothing up, in any order") {
  Copies copies;
  StreamProgress stream;
  std::array<std::byte, 8> to{};
  const uint64_t first = issue(&copies, &stream, to.data(), 8);
  const uint64_t second = issue(&copies, &stream, to.data(), 8);
  const uint64_t third = issue(&copies, &stream, to.data(), 8);
  copies.report(&stream, 3);
  copies.cancel(second);
  CHECK(stream.complete == 0);
  copies.cancel(first);
  CHECK(stream.complete == 2);
  copies.cancel(third);
  CHECK(stream.complete == 3);
  CHECK(stream.copies_pending == 0);
}

TEST_CASE("losing the connection releases who waits") {
  Copies copies;
  StreamProgress stream;
  std::array<std::byte, 8> to{};
  issue(&copies, &stream, to.data(), 8);
  copies.lose();
  CHECK_FALSE(copies.wait(&stream, 1));
}
