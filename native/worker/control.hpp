// The worker's socket to its agent: packets of JSON with descriptors.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/fds.hpp"

namespace outboard::worker {

/// What the agent says (docs/internals/session.md §4).
struct Order {
  enum class Kind { none, closed, claim, bulk, end, unknown };
  struct ClaimedDevice {
    int index = 0;  ///< of the driver's devices
    uint64_t share_bytes = 0;
  };

  Kind kind = Kind::none;
  std::string session;
  std::vector<ClaimedDevice> devices;
  unsigned slot = 0;
  std::string reason;
  std::vector<UniqueFd> descriptors;
};

class Control {
 public:
  explicit Control(UniqueFd socket) : socket_(std::move(socket)) {}

  int fd() const { return socket_.get(); }
  void send_ready(const std::string& protocol, int driver_version);
  void send_failed(const std::string& message);
  /// The next packet; `none` where there is none yet.
  Order receive();
  void close() { socket_.reset(); }

 private:
  void send(const std::string& packet);
  UniqueFd socket_;
};

}  // namespace outboard::worker
