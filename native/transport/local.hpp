// Sockets within one host: connecting to an abstract name, passing descriptors.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "base/fds.hpp"
#include "transport/status.hpp"

namespace outboard::transport {

/// Connects to the stream socket of this abstract name, close-on-exec, moved above descriptor 700.
/// Waits at most `timeout_ms` for a listener that is busy; empty where none listens, as in another
/// network namespace.
UniqueFd connect_local(const std::string& name, int timeout_ms);

/// Sends a number and a descriptor, which stays the caller's.
bool send_descriptor(int socket, uint64_t number, int fd);

/// Takes what send_descriptor() sent, without waiting: `again` where there is none, `failed` where
/// the other side sent anything else.
Status receive_descriptor(int socket, uint64_t* number, UniqueFd* fd);

}  // namespace outboard::transport
