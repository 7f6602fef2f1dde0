// Gathering messages.
// SPDX-License-Identifier: Apache-2.0
#include "worker/outbox.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace outboard::worker {

Outbox::Outbox(std::function<void(std::span<const std::byte>)> seal)
    : seal_(std::move(seal)), batch_(wire::max_frame_bytes) {}

std::byte* Outbox::begin(wire::MessageKind kind, uint64_t subject, CUresult result,
                         size_t payload_bytes) {
  const size_t whole = sizeof(wire::MessageHeader) + wire::padded(payload_bytes);
  if (whole > wire::max_frame_bytes) return nullptr;
  if (whole > wire::max_frame_bytes - used_) flush();
  wire::MessageHeader header;
  header.payload_bytes = static_cast<uint32_t>(payload_bytes);
  header.kind = kind;
  header.subject = subject;
  header.result = result;
  std::byte* const at = batch_.data() + used_;
  std::memset(at + whole - 8, 0, 8);  // the padding, where there is some
  std::memcpy(at, &header, sizeof header);
  used_ += whole;
  return at + sizeof header;
}

void Outbox::message(wire::MessageKind kind, uint64_t subject, CUresult result,
                     std::span<const std::byte> payload) {
  std::byte* to = begin(kind, subject, result, payload.size());
  if (to && !payload.empty()) std::memcpy(to, payload.data(), payload.size());
}

// The client puts them together again; nothing else is lost if they lie in frames of their own.
void Outbox::reply_in_parts(uint32_t request, CUresult result, std::span<const std::byte> payload) {
  if (payload.size() > wire::max_reply_bytes) {
    return message(wire::MessageKind::reply, request, CUDA_ERROR_OUT_OF_MEMORY);
  }
  while (payload.size() > wire::reply_part_bytes) {
    message(wire::MessageKind::reply_part, request, CUDA_SUCCESS,
            payload.first(wire::reply_part_bytes));
    payload = payload.subspan(wire::reply_part_bytes);
  }
  message(wire::MessageKind::reply, request, result, payload);
}

void Outbox::text(wire::TextTo where, std::string_view text) {
  constexpr size_t most_bytes = 256 << 10;
  while (!text.empty()) {
    const std::string_view part = text.substr(0, most_bytes);
    message(wire::MessageKind::text, static_cast<uint64_t>(where), CUDA_SUCCESS,
            std::as_bytes(std::span(part)));
    text.remove_prefix(part.size());
  }
}

void Outbox::flush() {
  if (used_ == 0) return;
  const size_t used = std::exchange(used_, 0);
  seal_({batch_.data(), used});
}

}  // namespace outboard::worker
