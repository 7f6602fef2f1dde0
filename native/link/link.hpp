// Numbered, acknowledged, bounded frames over one connection; both ends use it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "transport/tcp.hpp"
#include "wire/frame.hpp"

namespace outboard::link {

enum class Status {
  ok,
  again,   ///< no whole frame yet
  closed,  ///< the other side ended
  broken,  ///< the other side broke the protocol; error() says how
};

struct Frame {
  wire::FrameKind kind = wire::FrameKind::batch;
  uint64_t number = 0;
  uint64_t acknowledged = 0;
  std::span<const std::byte> payload;  ///< 8-aligned; valid until the next call
};

/// Receives frames. One thread at a time.
class FrameReceiver {
 public:
  explicit FrameReceiver(transport::Channel channel);
  /// The next frame; waits at most `timeout_ms` for its first bytes and the rest (0: not at all, <
  /// 0: for ever).
  Status next(Frame* frame, int timeout_ms);
  /// True if a whole frame is already buffered, so that `next` costs no system call.
  bool buffered() const;
  uint64_t received() const { return number_; }
  const std::string& error() const { return error_; }

 private:
  Status check(const wire::FrameHeader& header);
  Status fill(int timeout_ms);
  transport::Channel channel_;
  std::unique_ptr<std::byte[]> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  uint64_t number_ = 0;
  std::string error_;
};

/// Sends frames. One thread at a time.
class FrameSender {
 public:
  explicit FrameSender(transport::Channel channel) : channel_(channel) {}
  /// Sends a whole frame, waiting while the socket is full (the client's way: its reader is another
  /// thread).
  Status send(wire::FrameKind kind, std::span<const std::byte> payload, uint64_t acknowledged);
  /// Sends what fits and keeps the rest for flush() (the worker's way: it never blocks).
  Status queue(wire::FrameKind kind, std::span<const std::byte> payload, uint64_t acknowledged);
  Status flush();
  size_t queued_bytes() const {
    return rest_.size() - rest_begin_ + (channel_.tls != nullptr ? channel_.tls->unsent() : 0);
  }
  uint64_t sent() const { return number_; }

 private:
  transport::Channel channel_;
  uint64_t number_ = 0;
  std::vector<std::byte> rest_;
  size_t rest_begin_ = 0;
};

}  // namespace outboard::link
