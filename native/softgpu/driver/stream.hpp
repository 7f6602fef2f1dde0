// Streams: ordered queues of operations, and the threads that work them off.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "handles.hpp"
#include "operation.hpp"

namespace softgpu {

class Capture;
struct GraphNode;
struct GreenContext;

class Stream : public std::enable_shared_from_this<Stream> {
 public:
  Stream(Context& context, unsigned flags, int priority,
         std::shared_ptr<GreenContext> green = nullptr);

  /// Appends the operation; done at once on the caller's thread where nothing is before it and it
  /// is trivial (or `inline_any`: then whatever its length).
  void submit(Operation operation, bool inline_any = false);

  /// Waits until everything issued before the call is complete.
  CUresult synchronize();
  bool idle() const { return completed_.load() == issued_.load(); }
  uint64_t issued() const { return issued_.load(); }
  bool reached(uint64_t sequence) const { return completed_.load() >= sequence; }
  void wait_for(uint64_t sequence);

  /// Works off the queue until it is empty; called on an executor thread.
  void drain();

  /// Whether it is left over from a green context.
  bool orphaned() const;
  bool blocking() const { return (flags & CU_STREAM_NON_BLOCKING) == 0; }

  const std::weak_ptr<Context> context;
  const std::shared_ptr<GreenContext> green;  ///< that it is of; mostly null
  const unsigned flags;
  const int priority;
  CUsynchronizationPolicy policy = CU_SYNC_POLICY_AUTO;
  const uint64_t id;
  CUstream handle = nullptr;
  bool legacy = false;
  bool per_thread = false;
  std::atomic<bool> destroyed{false};

  /// Set while the stream captures; guarded by capture_mutex() (capture.hpp). The flag is for
  /// looking without the lock.
  std::atomic<bool> capturing{false};
  std::shared_ptr<Capture> capture;
  std::vector<GraphNode*> capture_dependencies;

 private:
  /// Makes this stream follow what the legacy rules put before its next operation.
  void add_legacy_order(Context& owner);
  void push(Operation operation);
  void complete_one();
  bool nothing_before(Context& owner) const;
  /// The default stream that it may have to wait for.
  std::shared_ptr<Stream> its_legacy(Context& owner) const;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Operation> queue_;
  bool running_ = false;
  std::atomic<uint64_t> issued_{0};
  std::atomic<uint64_t> completed_{0};
  std::atomic<int> waiters_{0};
};

extern HandleTable<Stream, CUstream, 2>& streams();

/// A new stream with a handle.
std::shared_ptr<Stream> make_stream(Context& context, std::shared_ptr<GreenContext> green,
                                    unsigned flags, int priority);

/// The stream that a handle names in this context: 0, the legacy and per-thread handles included.
std::shared_ptr<Stream> find_stream(CUstream handle, Context& context);

}  // namespace softgpu
