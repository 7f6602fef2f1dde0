// What the worker says to its client: messages gathered into frames.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "wire/codec.hpp"
#include "wire/frame.hpp"

namespace outboard::worker {

class Outbox {
 public:
  /// `seal` takes the payload of a whole batch.
  explicit Outbox(std::function<void(std::span<const std::byte>)> seal);

  /// Starts a message of `payload_bytes`, which the caller writes at once; null where it fits in no
  /// frame.
  std::byte* begin(wire::MessageKind kind, uint64_t subject, CUresult result, size_t payload_bytes);
  void message(wire::MessageKind kind, uint64_t subject, CUresult result,
               std::span<const std::byte> payload = {});
  template <typename Reply>
  void reply(uint32_t request, CUresult result, const Reply& reply) {
    const size_t bytes = reply.encoded_bytes();
    std::byte* to = begin(wire::MessageKind::reply, request, result, bytes);
    std::vector<std::byte> large;
    if (!to) {
      large.resize(bytes);
      to = large.data();
    }
    wire::Writer writer(to);
    reply.encode(writer);
    if (!large.empty()) reply_in_parts(request, result, large);
  }
  /// What kernels say, in as many messages as it takes.
  void text(wire::TextTo where, std::string_view text);

  /// Hands what is gathered to `seal`.
  void flush();
  bool empty() const { return used_ == 0; }

 private:
  void reply_in_parts(uint32_t request, CUresult result, std::span<const std::byte> payload);

  std::function<void(std::span<const std::byte>)> seal_;
  std::vector<std::byte> batch_;
  size_t used_ = 0;
};

}  // namespace outboard::worker
