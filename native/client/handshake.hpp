// Opening a connection to a node: the preface with its proof, the hello, the welcome.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/fds.hpp"
#include "client/session_file.hpp"
#include "client/windows.hpp"
#include "transport/tls.hpp"

namespace outboard::client {

/// What the server said about one device; it never changes, so it is asked for once.
struct DeviceSnapshot {
  std::string name;
  std::array<uint8_t, 16> uuid{};
  std::array<uint8_t, 8> luid{};
  uint64_t total_bytes = 0;     ///< the share
  uint64_t physical_bytes = 0;  ///< of the whole device
  uint32_t primary_flags = 0;
  std::vector<std::pair<int32_t, int32_t>> attributes;  ///< (CUdevice_attribute, value)
  std::vector<std::vector<int32_t>> p2p;  ///< [peer on this node][CUdevice_P2PAttribute - 1]

  /// A CUdevice_P2PAttribute towards another device of this node; 0 if the server did not say.
  int32_t peer_attribute(size_t peer, int attribute) const {
    const auto place = static_cast<size_t>(attribute) - 1;  // they are counted from 1
    return peer < p2p.size() && place < p2p[peer].size() ? p2p[peer][place] : 0;
  }
};

struct Welcome {
  std::string worker;  ///< 32 hex digits; names it in the preface of bulk connections
  std::string release;
  std::string memory_socket;  ///< where a program on the server's own host shares memory; or empty
  int32_t driver_version = 0;
  int32_t pid = 0;
  bool software = false;  ///< the devices are software GPUs: what they load is PTX
  std::vector<DeviceSnapshot> devices;
};

/// The preface of session.md §3; `worker` is empty for the command connection.
std::string make_preface(const SessionNode& node, const char* purpose, const std::string& worker,
                         const std::string& nonce, uint64_t time);

/// Connects, sends the preface, and protects the connection where the node asks for it. On failure
/// the descriptor is empty, `reason` says why.
transport::Connected open_connection(const SessionNode& node, const char* purpose,
                                     const std::string& worker, std::string* reason);

/// Connects to the server on this host for sharing memory, as `welcome` says, and waits until the
/// worker is there. Empty, with a reason, where that cannot be.
UniqueFd open_memory_connection(const SessionNode& node, const Welcome& welcome,
                                std::string* reason);

/// The hello's JSON: this process, its windows, the environment that matters to a driver.
std::string make_hello(const std::vector<Window>& windows);

enum class WelcomeKind { granted, window_taken, refused };

/// Reads the other side's first answer after the hello. `window_taken` sets `device`.
WelcomeKind read_welcome(transport::Channel channel, Welcome* welcome, uint32_t* device,
                         std::string* reason);

/// The text of an agent's refusal (`OUTE…`) whose first 8 bytes are already read.
std::string read_refusal(transport::Channel channel, const std::byte (&head)[8]);

}  // namespace outboard::client
