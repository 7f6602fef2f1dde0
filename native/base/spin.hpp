// Whether to poll before blocking: always where cores are plenty, else while it pays.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sched.h>

#include <algorithm>
#include <cstdint>

namespace outboard {

/// Polling saves the wake-ups of an answer that comes soon. On few cores it takes the time of whom
/// the answer comes from: there every round that was polled in vain doubles the number of rounds
/// that are not polled, and one that paid ends that. Not thread-safe.
class Spin {
 public:
  explicit Spin(int cores = own_cores()) : cores_(cores) {}

  /// The cores that this process may use.
  static int own_cores() {
    cpu_set_t set;
    return ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  }

  /// At least four cores.
  bool plenty() const { return cores_ >= 4; }

  /// The nanoseconds to poll in the round that begins; 0: none.
  uint64_t begin() {
    if (cores_ < 2) return 0;
    if (skip_ != 0) {
      --skip_;
      return 0;
    }
    return longest_ns;
  }

  /// The end of a round that was polled: whether what it waited for came meanwhile.
  void end(bool paid) {
    if (plenty()) return;
    penalty_ = paid ? 0 : std::min(2 * penalty_ + 1, most_skipped);
    skip_ = penalty_;
  }

 private:
  static constexpr uint64_t longest_ns = 50'000;
  static constexpr unsigned most_skipped = 127;

  int cores_;
  unsigned penalty_ = 0;
  unsigned skip_ = 0;
};

}  // namespace outboard
