// How far a stream is known to be: commands issued on it, and how many of the first are done.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

namespace outboard::client {

/// Part of a stream's slot. `issued` grows under the connection's append lock, so that it counts in
/// the order of the wire; `complete` grows only when the D2H bytes of the commands it covers are in
/// place.
struct StreamProgress {
  std::atomic<uint64_t> issued{0};
  std::atomic<uint64_t> complete{0};
  std::atomic<uint32_t> copies_pending{0};  ///< D2H copies whose bytes are not all here
  uint64_t reported = 0;                    ///< what the server said; under Copies' lock
  uint32_t oldest_copy = 0;                 ///< list of pending copies in order; under Copies' lock
  uint32_t newest_copy = 0;

  bool idle() const {
    return complete.load(std::memory_order_acquire) >= issued.load(std::memory_order_relaxed);
  }
};

}  // namespace outboard::client
