// The bytes of bulk copies during a replay: a recording has none, so zeros go and what comes is
// dropped. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "base/fds.hpp"

namespace outboard::replay {

class Feeder {
 public:
  explicit Feeder(UniqueFd socket);
  ~Feeder();
  Feeder(const Feeder&) = delete;
  Feeder& operator=(const Feeder&) = delete;

  /// The bytes of a host-to-device copy, in the order of its stream and within its window.
  void send(uint64_t stream, uint64_t copy, uint64_t bytes);

 private:
  struct Copy {
    uint64_t id;
    uint64_t bytes;
    uint64_t sent_bytes;
  };
  struct Stream {
    std::deque<Copy> copies;
    uint64_t outstanding_bytes = 0;
  };
  bool send_piece(std::unique_lock<std::mutex>& lock);
  void run_sender();
  void run_receiver();

  UniqueFd socket_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::unordered_map<uint64_t, Stream> streams_;
  std::thread sender_;
  std::thread receiver_;
};

}  // namespace outboard::replay
