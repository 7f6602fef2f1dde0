// Waiting for a socket, with a deadline, and what an errno means for a transfer.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

#include "transport/status.hpp"

namespace outboard::transport {

/// What is left of a time limit; negative limits never end.
class Deadline {
 public:
  explicit Deadline(int timeout_ms)
      : endless_(timeout_ms < 0), end_(Clock::now() + std::chrono::milliseconds(timeout_ms)) {}
  int left_ms() const {
    if (endless_) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end_ - Clock::now()).count();
    return left > 0 ? static_cast<int>(left) : 0;
  }

 private:
  using Clock = std::chrono::steady_clock;
  bool endless_;
  Clock::time_point end_;
};

/// Waits for `events`; `again` when the time is over.
Status wait_for(int fd, short events, int timeout_ms);

/// `again`, `closed` or `failed`.
Status status_of_errno();

}  // namespace outboard::transport
