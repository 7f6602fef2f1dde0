// Commands that have come but may not be issued yet, and the order in which they may be: no driver
// here. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

namespace outboard::worker {

/// How a stream stands to its context's legacy default stream.
enum class StreamKind : uint8_t {
  legacy,  ///< waits for, and holds up, the blocking streams
  blocking,
  independent,  ///< CU_STREAM_NON_BLOCKING
};

/// The backlogs of one context's streams. Every stream-ordered command has a sequence number,
/// global to the worker; within one stream commands are issued in that order, and so are a command
/// of the legacy stream and one of a blocking stream. Nothing else orders two streams here: events
/// do that through what an item waits for, which its owner checks.
template <typename Item>
class Backlog {
 public:
  struct Entry {
    uint64_t sequence = 0;
    Item item;
  };

  /// One stream's commands, first in first out.
  class Queue {
   public:
    /// Default and blocking streams order each other where `part` is the same.
    explicit Queue(StreamKind kind, const void* part = nullptr) : kind_(kind), part_(part) {}
    bool empty() const { return entries_.empty(); }
    size_t size() const { return entries_.size(); }
    Entry& head() { return entries_.front(); }
    StreamKind kind() const { return kind_; }

   private:
    friend class Backlog;
    StreamKind kind_;
    const void* part_;
    std::deque<Entry> entries_;
  };

  void push(Queue& queue, uint64_t sequence, Item item) {
    if (queue.entries_.empty()) waiting_.push_back(&queue);
    queue.entries_.push_back({sequence, std::move(item)});
    ++items_;
  }

  void pop(Queue& queue) {
    queue.entries_.pop_front();
    --items_;
    if (queue.entries_.empty()) forget(queue);
  }

  /// Takes everything out of a queue, in order.
  std::deque<Entry> clear(Queue& queue) {
    if (!queue.entries_.empty()) forget(queue);
    items_ -= queue.entries_.size();
    return std::exchange(queue.entries_, {});
  }

  /// Whether nothing that is kept has to be issued before a command with this number on this queue.
  bool first(const Queue& queue, uint64_t sequence) const {
    if (!queue.entries_.empty() && queue.entries_.front().sequence < sequence) return false;
    if (queue.kind_ == StreamKind::independent) return true;
    const StreamKind other =
        queue.kind_ == StreamKind::legacy ? StreamKind::blocking : StreamKind::legacy;
    return std::none_of(waiting_.begin(), waiting_.end(), [&](const Queue* waiting) {
      return waiting->kind_ == other && waiting->part_ == queue.part_ &&
             waiting->entries_.front().sequence < sequence;
    });
  }

  /// Whether nothing is kept of what has this number or one before it.
  bool issued(uint64_t sequence) const {
    return std::all_of(waiting_.begin(), waiting_.end(), [&](const Queue* waiting) {
      return waiting->entries_.front().sequence > sequence;
    });
  }

  bool empty() const { return waiting_.empty(); }
  size_t items() const { return items_; }

 private:
  void forget(const Queue& queue) {
    waiting_.erase(std::find(waiting_.begin(), waiting_.end(), &queue));
  }

  std::vector<Queue*> waiting_;  ///< the queues that are not empty
  size_t items_ = 0;
};

}  // namespace outboard::worker
