// The bulk connection: bytes of large copies, sent within each stream's credit, received in place.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <unordered_map>

#include "base/fds.hpp"
#include "client/copies.hpp"
#include "client/result.hpp"
#include "transport/tls.hpp"

namespace outboard::client {

class Bulk {
 public:
  /// `open` connects (preface sent) at the first copy that needs it.
  Bulk(Connection* connection, Copies* copies,
       std::function<transport::Connected(std::string*)> open)
      : connection_(connection), copies_(copies), open_(std::move(open)) {}

  /// Connects if that has not happened yet.
  Result ready();

  /// Queues the bytes of one host-to-device copy; `append(id)` puts its command on the wire within
  /// the same step. Waits until the bytes have left if `wait`, else `from` must stay as it is until
  /// then.
  Result send(uint64_t stream, const void* from, uint64_t bytes, bool wait,
              const std::function<Result(uint64_t id)>& append);
  /// The stream is gone.
  void forget(uint64_t stream);
  /// The stream's context is dead: no credit will come, so whoever waits for its bytes to leave is
  /// released, and what has not left is dropped.
  void drop(uint64_t stream);
  /// Waits until no queued copy reads the program's memory any more.
  void drain();
  /// Releases everybody.
  void lose();

 private:
  transport::Channel channel() const { return {fd_.get(), tls_.get()}; }

  struct Job {
    uint64_t copy = 0;
    const std::byte* at = nullptr;
    uint64_t bytes = 0;
    uint64_t offset = 0;
    bool* left = nullptr;  // under mutex_
  };
  struct Queue {
    std::deque<Job> jobs;
    uint64_t credit = 0;
    bool ended = false;
    bool dropped = false;
    bool sending = false;  ///< a piece of the first job is being sent
  };

  bool next_piece(std::unique_lock<std::mutex>* lock, uint64_t* stream, Job* piece);
  void sent_piece(uint64_t stream, const Job& piece);
  void send_loop();
  void receive_loop();
  bool receive_piece(std::string* reason);

  Connection* connection_;
  Copies* copies_;
  std::function<transport::Connected(std::string*)> open_;
  std::mutex open_mutex_;
  UniqueFd fd_;
  std::unique_ptr<transport::Tls> tls_;
  std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable left_;
  std::unordered_map<uint64_t, Queue> queues_;
  std::deque<uint64_t> turns_;  // streams with jobs, in the order of their turns
  uint64_t next_copy_ = 0;
  std::unique_ptr<std::byte[]> scratch_;  ///< of the receiving thread: what was cancelled goes here
  bool lost_ = false;
};

}  // namespace outboard::client
