// What the program did, counted where the agent reads it without asking.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

#include "worker/hello.hpp"
#include "worker/share.hpp"

namespace outboard::worker {

/// The worker's record in the share page (docs/internals/session.md §5). Written by the loop's
/// thread alone, by plain stores: counting costs no system call and no lock.
class Usage {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Usage(Share& share) : record_(share.usage()) {}

  /// Says whose program it is; its time begins.
  void begin(const Hello& hello);
  /// A call of the program about a device.
  void call(unsigned device);
  /// Work for a device went to the driver: it is busy until `settled` says otherwise.
  void working(unsigned device);
  /// Something moved in a turn of the loop that ended now.
  void turned(Clock::time_point now);
  /// The devices of the mask have work; on the others it was over at `ended`.
  void settled(uint32_t busy, Clock::time_point ended);
  /// Devices that have work as far as is known, a bit each.
  uint32_t busy() const { return busy_; }

 private:
  uint64_t* record_;
  std::array<uint64_t, Share::max_devices> calls_{};
  std::array<Clock::time_point, Share::max_devices> since_{};
  std::array<Clock::duration, Share::max_devices> busy_time_{};
  uint32_t busy_ = 0;
  bool called_ = false;
};

}  // namespace outboard::worker
