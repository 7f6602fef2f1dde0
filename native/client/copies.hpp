// The device-to-host copies whose bytes are still to come, and what streams may be called complete.
// SPDX-License-Identifier: Apache-2.0
//
// Destination and length of a copy come from this table, never from a frame. What the server
// reports as complete counts for the program only when the bytes of the stream's earlier copies are
// in place.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "client/connection.hpp"
#include "client/futex.hpp"
#include "client/progress.hpp"

namespace outboard::client {

class Copies {
 public:
  /// Enters a copy and lets `append(id, &count)` put its command on the wire, in one step, so that
  /// the table's order is the wire's. Returns append's result; on failure nothing stays.
  template <typename Append>
  Result issue(StreamProgress* stream, void* to, uint64_t bytes, uint64_t* id, Append&& append) {
    const std::lock_guard guard(mutex_);
    const uint32_t slot = enter(stream, to, bytes);
    uint64_t count = 0;
    const Result result = append(copies_[slot].id, &count);
    *id = copies_[slot].id;
    if (result != result::success) {
      leave(slot);
      return result;
    }
    link(slot, count);
    return result;
  }

  /// All bytes of a small copy. False where nobody asked for them.
  bool deliver(uint64_t id, std::span<const std::byte> content);

  /// Where the next piece of a bulk copy belongs; null where nobody asked for it. Of a copy that
  /// was cancelled pieces may still be on their way: then `*dropped` is set.
  std::byte* place(uint64_t id, uint64_t offset, uint64_t bytes, bool* dropped);
  /// A piece is in place.
  void arrived(uint64_t id, uint64_t bytes);
  /// The copy was refused: its bytes will never come.
  void cancel(uint64_t id);
  /// None of the stream's bytes will come (its context is dead).
  void cancel_stream(StreamProgress* stream);

  /// The server says that the first `completed` commands of the stream are done.
  void report(StreamProgress* stream, uint64_t completed);
  /// Waits until the first `count` commands count as complete; false when the connection is lost
  /// first.
  bool wait(StreamProgress* stream, uint64_t count);
  void lose();

 private:
  struct Copy {
    uint64_t id = 0;  // sequence << 20 | slot; 0: free
    std::byte* to = nullptr;
    uint64_t bytes = 0;
    uint64_t received = 0;
    uint64_t count = 0;  // the stream's count with this copy
    StreamProgress* stream = nullptr;
    uint32_t next = 0;
  };

  uint32_t enter(StreamProgress* stream, void* to, uint64_t bytes);
  void leave(uint32_t slot);
  void link(uint32_t slot, uint64_t count);
  void finish(uint32_t slot);
  void apply(StreamProgress* stream);
  Copy* find(uint64_t id);

  std::mutex mutex_;
  std::vector<Copy> copies_{1};  // slot 0 is none
  std::vector<uint32_t> free_;
  uint64_t sequence_ = 0;
  bool lost_ = false;
  Signal settled_;
};

}  // namespace outboard::client
