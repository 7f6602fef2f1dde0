// The client's hello and the worker's welcome.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/fds.hpp"
#include "worker/blocks.hpp"

namespace outboard::worker {

struct Hello {
  int64_t pid = 0;
  uint64_t start_time = 0;  ///< clock ticks after boot, as /proc/PID/stat has it
  std::string boot_id;
  uint64_t pid_namespace = 0;
  std::string program;
  uint32_t uid = 0;
  std::vector<Range> windows;  ///< one for each device of the session
};

/// False, with the reason, where the text is not a hello for that many devices.
bool read_hello(std::span<const std::byte> payload, size_t devices, Hello* hello,
                std::string* error);

/// Whether the client says that it runs on this host.
bool is_on_this_host(const Hello& hello);

/// A descriptor that becomes readable when the client's process ends, where it runs on this host
/// and in this process's namespace; empty otherwise. A forked child may hold the socket open for
/// longer.
UniqueFd watch_client(const Hello& hello);

/// The bytes of a welcome: the prefix and the JSON.
std::vector<std::byte> make_welcome(const std::string& json);

}  // namespace outboard::worker
