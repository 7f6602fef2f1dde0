// The worker's socket to its agent: packets of JSON with descriptors.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/fds.hpp"

namespace outboard::worker {

/// What the agent says (docs/internals/session.md §4).
struct Order {
  enum class Kind { none, closed, claim, bulk, memory, neighbour, end, unknown };
  struct ClaimedDevice {
    int index = 0;  ///< of the driver's devices
    uint64_t share_bytes = 0;
  };

  Kind kind = Kind::none;
  std::string session;
  std::vector<ClaimedDevice> devices;
  unsigned slot = 0;
  std::optional<std::array<uint8_t, 32>> key;  ///< with one, its socket speaks TLS
  std::string memory_socket;  ///< of `claim`: where clients on this host share memory
  std::string reason;
  std::string worker;  ///< of `neighbour`: the one that was asked for
  std::vector<UniqueFd> descriptors;
};

class Control {
 public:
  /// `agent_socket` is where the next agent listens, should this one end; empty: nowhere.
  explicit Control(UniqueFd socket, std::string agent_socket = {}, std::string id = {})
      : socket_(std::move(socket)), agent_socket_(std::move(agent_socket)), id_(std::move(id)) {}

  int fd() const { return socket_.get(); }
  /// Whether the agent is gone, and there is a place where the next one can be called.
  bool lost() const { return !socket_ && !agent_socket_.empty(); }
  /// Calls the next agent; nothing happens where none listens yet.
  void call();
  void send_ready(const std::string& protocol, int driver_version);
  void send_failed(const std::string& message);
  /// Asks for a socket to another worker of the session.
  void send_reach(const std::string& worker);
  /// The next packet; `none` where there is none yet.
  Order receive();
  void close() { socket_.reset(); }

 private:
  void send(const std::string& packet);
  UniqueFd socket_;
  std::string agent_socket_;
  std::string id_;
};

}  // namespace outboard::worker
