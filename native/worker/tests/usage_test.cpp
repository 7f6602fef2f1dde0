// What a program did is where the agent reads it.
// SPDX-License-Identifier: Apache-2.0
#include "worker/usage.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace outboard::worker {
namespace {

using namespace std::chrono_literals;
using Layout = Share::UsageLayout;

constexpr unsigned slot = 3;

struct Fixture {
  Fixture() {
    const uint64_t limits[] = {1 << 20, 1 << 20};
    page = Share::make(limits, 2);
    std::string error;
    REQUIRE(share.open(UniqueFd(::dup(page.get())), slot, &error));
  }
  // As the agent reads it: from the descriptor, where the contract says.
  uint64_t field(size_t number) const {
    uint64_t value = 0;
    const auto at = static_cast<off_t>(65536 + 1024 * slot + 8 * number);
    REQUIRE(::pread(page.get(), &value, sizeof value, at) == sizeof value);
    return value;
  }
  UniqueFd page;
  Share share;
};

TEST_CASE("calls are counted for each device, and the last one has its time") {
  Fixture fixture;
  Usage usage(fixture.share);
  usage.call(0);
  usage.call(1);
  usage.call(1);
  CHECK(fixture.field(Layout::calls) == 1);
  CHECK(fixture.field(Layout::calls + 1) == 2);
  CHECK(fixture.field(Layout::last_call) == 0);
  usage.turned(Usage::Clock::time_point(5ms));
  CHECK(fixture.field(Layout::last_call) == 5000);
  usage.turned(Usage::Clock::time_point(9ms));
  CHECK(fixture.field(Layout::last_call) == 5000);  // nothing was called in that turn
}

TEST_CASE("a device is busy from its first work until nothing of it is left") {
  Fixture fixture;
  Usage usage(fixture.share);
  const auto before = Usage::Clock::now();
  usage.working(1);
  usage.working(1);
  CHECK(usage.busy() == 2);
  const uint64_t since = fixture.field(Layout::busy_since + 1);
  CHECK(since >= static_cast<uint64_t>(before.time_since_epoch() / 1us));
  usage.settled(2, before + 10s);
  CHECK(fixture.field(Layout::busy_since + 1) == since);
  usage.settled(0, Usage::Clock::time_point(std::chrono::microseconds(since)) + 7s);
  CHECK(fixture.field(Layout::busy_since + 1) == 0);
  // The record has the beginning in whole microseconds.
  CHECK(fixture.field(Layout::busy + 1) <= 7'000'000);
  CHECK(fixture.field(Layout::busy + 1) >= 6'999'999);
  CHECK(fixture.field(Layout::busy) == 0);
  usage.working(1);
  usage.settled(0, before);  // a time before the beginning is no time
  CHECK(fixture.field(Layout::busy + 1) <= 7'000'000);
}

TEST_CASE("the most that was held is kept, and whose program it is") {
  Fixture fixture;
  Usage usage(fixture.share);
  CHECK(fixture.share.reserve(0, 700));
  fixture.share.release(0, 600);
  CHECK(fixture.share.reserve(0, 50));
  CHECK(fixture.field(Layout::peak) == 700);
  Hello hello;
  hello.pid = 4711;
  hello.uid = 1000;
  hello.program = std::string(100, 'x');
  CHECK(fixture.field(Layout::started) == 0);
  usage.begin(hello);
  CHECK(fixture.field(Layout::started) > 1'600'000'000'000'000);
  CHECK(fixture.field(Layout::pid) == 4711);
  CHECK(fixture.field(Layout::uid) == 1000);
  CHECK(fixture.field(Layout::program + 7) == 0x0078787878787878);  // cut, and ended by NUL
}

}  // namespace
}  // namespace outboard::worker
