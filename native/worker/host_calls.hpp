// Host nodes of graphs: the driver's thread waits while the client runs the program's function.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <unordered_map>

#include "worker/outbox.hpp"

namespace outboard::worker {

struct Context;
class HostCalls;

/// A host function or user object of the client's, by its number. The client is told when the last
/// graph has let go of it.
struct ClientObject {
  ClientObject(HostCalls& owner, const Context* of, uint64_t number)
      : calls(owner), context(of), object(number) {}
  ~ClientObject();
  ClientObject(const ClientObject&) = delete;
  ClientObject& operator=(const ClientObject&) = delete;

  /// What the driver calls for a host node; `object` is a ClientObject.
  static void CUDA_CB run(void* object);

  HostCalls& calls;
  const Context* context;
  uint64_t object;
};

class HostCalls {
 public:
  /// `wake_fd` is an eventfd that ends the loop's wait.
  HostCalls(Outbox& outbox, int wake_fd) : outbox_(outbox), wake_fd_(wake_fd) {}

  // ---- the driver's threads
  void call(const ClientObject& object);

  // ---- the loop's thread
  /// Tells the client of calls that have come; true if there were any.
  bool poll();
  /// The client has run the function of this call; false where there is no such call.
  bool done(uint64_t call);
  /// Nobody will run what the context's graphs still call.
  void release(const Context& context);
  void released(uint64_t object);

 private:
  struct Call {
    const Context* context = nullptr;
    bool done = false;
  };
  struct Due {
    uint64_t call = 0;
    uint64_t object = 0;
  };
  static constexpr uint64_t of_graphs = uint64_t{1} << 63;

  Outbox& outbox_;
  int wake_fd_;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::unordered_map<uint64_t, Call> calls_;
  std::deque<Due> due_;
  uint64_t last_ = of_graphs;
};

}  // namespace outboard::worker
