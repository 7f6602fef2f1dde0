// The byte mover over TCP: connecting, whole sends and receives with deadlines.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/fds.hpp"
#include "transport/status.hpp"
#include "transport/tls.hpp"

namespace outboard::transport {

/// Connects to `host:port` (names are resolved, IPv6 in brackets); blocking, TCP_NODELAY,
/// close-on-exec, moved above descriptor 700. On failure returns an empty descriptor and says why
/// in `error`.
UniqueFd connect(const std::string& address, int timeout_ms, std::string* error);

/// Options that every data-plane socket has, whichever side made it: no delay, keep-alive that
/// finds a dead peer, buffers as the kernel tunes them.
void set_options(int fd);

/// Sends all of `parts` (they are consumed in place). Waits while the socket is full.
Status send_all(Channel channel, std::span<iovec> parts);

/// Sends what fits now; `sent` bytes are done with. `again` when the socket is full, also where all
/// of them were taken but TLS has records left: then it is to be called again, with what there is.
Status send_some(Channel channel, std::span<const std::byte> bytes, size_t* sent);

/// Receives exactly `bytes`; `timeout_ms` < 0 waits for ever, and bounds the whole call otherwise.
Status receive_all(Channel channel, void* to, size_t bytes, int timeout_ms = -1);

/// Receives what is there, at least one byte; waits at most `timeout_ms` (0: not at all, < 0: for
/// ever).
Status receive_some(Channel channel, std::span<std::byte> to, size_t* received, int timeout_ms);

}  // namespace outboard::transport
