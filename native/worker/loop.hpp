// The loop of a claimed worker: frames in, commands issued, completions out; it never blocks in the
// driver. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "base/fds.hpp"
#include "base/spin.hpp"
#include "link/link.hpp"
#include "transport/tls.hpp"
#include "worker/control.hpp"
#include "worker/hello.hpp"
#include "worker/worker.hpp"

namespace outboard::worker {

/// Exit codes of a worker.
inline constexpr int exit_ended = 0;
inline constexpr int exit_failed = 1;
inline constexpr int exit_protocol = 2;

class Loop {
 public:
  struct Settings {
    std::string id;  ///< 32 hexadecimal digits
    std::string release;
    DeviceText* text = nullptr;
    std::string memory_socket = {};  ///< where a client on this host shares memory; empty: nowhere
  };

  /// `control` may be null: nobody gives orders.
  Loop(const Driver& driver, std::vector<Device> devices, Share& share,
       transport::Connected command, Control* control, Settings settings);

  /// Until the session ends; the exit code.
  int run();

  Worker& worker() { return worker_; }

 private:
  using Clock = std::chrono::steady_clock;

  bool receive();
  void take(const link::Frame& frame);
  void greet(std::span<const std::byte> payload);
  void send_welcome(const std::string& json);
  void obey();
  void call_agent(Clock::time_point now);
  void seal(std::span<const std::byte> batch);
  void acknowledge();
  void wait();
  void sleep(std::chrono::nanoseconds longest);
  std::chrono::nanoseconds longest_wait(std::chrono::nanoseconds idle, bool unsettled) const;
  bool paused();
  void end(int code, std::string line = {});
  void say_goodbye(const std::string& line);

  UniqueFd wake_;
  UniqueFd command_;
  std::unique_ptr<transport::Tls> tls_;
  Control* control_;
  Settings settings_;
  link::FrameReceiver receiver_;
  link::FrameSender sender_;
  Worker worker_;
  UniqueFd client_;  ///< pidfd
  bool greeted_ = false;
  std::optional<int> ended_;
  uint64_t executed_ = 0;  ///< frames
  uint64_t unacknowledged_bytes_ = 0;
  Spin spin_;
  bool in_pause_ = false;                  ///< nothing has moved since it looked last
  std::chrono::nanoseconds spin_time_{0};  ///< of this pause or the next; 0: it sleeps
  Clock::time_point last_move_ = Clock::now();
  Clock::time_point last_check_ = last_move_;
  Clock::time_point last_call_ = last_move_;
  Clock::time_point last_order_ = last_move_;
};

}  // namespace outboard::worker
