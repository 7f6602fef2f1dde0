// Finding, checking and reading the session file that says where this process's GPUs are.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace outboard::client {

struct SessionNode {
  std::string name;
  std::string address;  ///< HOST:PORT
  std::string tls;      ///< "none", or "psk": TLS 1.3 with the key
  std::string grant;    ///< its own, else the session's
  std::array<uint8_t, 32> key{};
};

struct SessionDevice {
  uint32_t node = 0;   ///< index into Session::nodes
  uint32_t index = 0;  ///< of the node's device
  std::string uuid;    ///< "GPU-…"
  std::string name;
  uint64_t share_bytes = 0;
};

struct Session {
  std::string path;
  std::string name;
  bool from_service = false;  ///< the grant is a ticket: for this process, once, within a minute
  std::string grant;
  std::array<uint8_t, 32> key{};
  std::vector<SessionNode> nodes;
  std::vector<SessionDevice> devices;
};

/// Why there is no session; `reason` is one line for people: what, why, and what to do next.
struct SessionError {
  std::string reason;
};

/// What a service is asked for: `inventory` never makes it allocate, and may come without a grant
/// that is of use.
enum class Want { ticket, inventory };

/// Finds the file (docs/internals/session.md §1), follows the `socket` form, checks everything.
bool read_session(Session* session, SessionError* error, Want want = Want::ticket);

/// The parts of read_session, for tests: the checks on the file itself, and on its text.
bool read_checked_file(const std::string& path, uint64_t uid, std::string* text, bool* private_file,
                       std::string* reason);
bool parse_session(const std::string& text, bool private_file, Session* session,
                   std::string* socket, std::string* reason);

}  // namespace outboard::client
