// Counting what the program does.
// SPDX-License-Identifier: Apache-2.0
#include "worker/usage.hpp"

#include <algorithm>
#include <cstring>

namespace outboard::worker {
namespace {

using Layout = Share::UsageLayout;

uint64_t microseconds(Usage::Clock::duration span) {
  return static_cast<uint64_t>(
      std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::microseconds>(span).count()));
}

// Read by another process: each field is whole, the fields together need not fit each other.
void put(uint64_t* field, uint64_t value) { __atomic_store_n(field, value, __ATOMIC_RELAXED); }

}  // namespace

void Usage::begin(const Hello& hello) {
  if (!record_) return;
  char name[Layout::program_bytes] = {};
  hello.program.copy(name, sizeof name - 1);
  std::memcpy(record_ + Layout::program, name, sizeof name);
  put(record_ + Layout::pid, static_cast<uint64_t>(std::max<int64_t>(0, hello.pid)));
  put(record_ + Layout::uid, hello.uid);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  // Last: a reader that sees a start sees whose it is.
  __atomic_store_n(record_ + Layout::started, microseconds(now), __ATOMIC_RELEASE);
}

void Usage::call(unsigned device) {
  if (!record_ || device >= Share::max_devices) return;
  called_ = true;
  put(record_ + Layout::calls + device, ++calls_[device]);
}

void Usage::working(unsigned device) {
  const uint32_t bit = device < Share::max_devices ? 1U << device : 0;
  if (!record_ || bit == 0 || (busy_ & bit) != 0) return;
  busy_ |= bit;
  since_[device] = Clock::now();
  put(record_ + Layout::busy_since + device, microseconds(since_[device].time_since_epoch()));
}

void Usage::turned(Clock::time_point now) {
  if (!called_) return;
  called_ = false;
  put(record_ + Layout::last_call, microseconds(now.time_since_epoch()));
}

void Usage::settled(uint32_t busy, Clock::time_point ended) {
  const uint32_t over = busy_ & ~busy;
  if (over == 0) return;
  busy_ &= busy;
  for (unsigned device = 0; device < Share::max_devices; ++device) {
    if ((over & (1U << device)) == 0) continue;
    busy_time_[device] += std::max(ended - since_[device], Clock::duration::zero());
    put(record_ + Layout::busy_since + device, 0);
    put(record_ + Layout::busy + device, microseconds(busy_time_[device]));
  }
}

}  // namespace outboard::worker
