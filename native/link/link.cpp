// Frames over a byte mover.
// SPDX-License-Identifier: Apache-2.0
#include "link/link.hpp"

#include <cstdio>
#include <cstring>

namespace outboard::link {
namespace {

// Room for one whole frame and for what came with it; a receive never waits for room.
constexpr size_t buffer_bytes = 2 * (wire::max_frame_bytes + sizeof(wire::FrameHeader));
constexpr size_t header_bytes = sizeof(wire::FrameHeader);

Status from(transport::Status status) {
  switch (status) {
    case transport::Status::ok:
      return Status::ok;
    case transport::Status::again:
    case transport::Status::timeout:
      return Status::again;
    default:
      return Status::closed;
  }
}

wire::FrameHeader make_header(wire::FrameKind kind, size_t payload_bytes, uint64_t number,
                              uint64_t acknowledged) {
  wire::FrameHeader header;
  header.payload_bytes = static_cast<uint32_t>(payload_bytes);
  header.kind = kind;
  header.number = number;
  header.acknowledged = acknowledged;
  return header;
}

}  // namespace

FrameReceiver::FrameReceiver(transport::Channel channel)
    : channel_(channel), buffer_(new std::byte[buffer_bytes]) {}

bool FrameReceiver::buffered() const {
  if (end_ - begin_ < header_bytes) return false;
  wire::FrameHeader header;
  std::memcpy(&header, buffer_.get() + begin_, header_bytes);
  return end_ - begin_ - header_bytes >= header.payload_bytes;
}

Status FrameReceiver::check(const wire::FrameHeader& header) {
  char text[160];
  const auto kind = static_cast<unsigned>(header.kind);
  if (header.payload_bytes > wire::max_frame_bytes) {
    std::snprintf(text, sizeof text, "a frame of %u bytes is longer than the limit of %zu",
                  header.payload_bytes, wire::max_frame_bytes);
  } else if (kind < 1 || kind > 4 || header.reserved != 0) {
    std::snprintf(text, sizeof text, "a frame of unknown kind %u", kind);
  } else if (header.number != number_ + 1) {
    std::snprintf(text, sizeof text, "frame %llu came after frame %llu",
                  static_cast<unsigned long long>(header.number),
                  static_cast<unsigned long long>(number_));
  } else {
    return Status::ok;
  }
  error_ = text;
  return Status::broken;
}

// Payloads are 8-aligned in the buffer because every frame begins at an aligned place: what is left
// of the next frame moves to the front when the buffered frames are used up or the room is.
Status FrameReceiver::fill(int timeout_ms) {
  if (begin_ != 0 &&
      (begin_ == end_ || begin_ % 8 != 0 || buffer_bytes - begin_ < buffer_bytes / 2)) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  size_t count = 0;
  const Status status = from(transport::receive_some(
      channel_, {buffer_.get() + end_, buffer_bytes - end_}, &count, timeout_ms));
  end_ += count;
  return status;
}

Status FrameReceiver::next(Frame* frame, int timeout_ms) {
  for (;;) {
    if (end_ - begin_ >= header_bytes) {
      if (begin_ % 8 != 0) {  // after a hello, whose length is any
        std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
        end_ -= begin_;
        begin_ = 0;
      }
      wire::FrameHeader header;
      std::memcpy(&header, buffer_.get() + begin_, header_bytes);
      if (const Status status = check(header); status != Status::ok) return status;
      if (end_ - begin_ - header_bytes >= header.payload_bytes) {
        number_ = header.number;
        *frame = {header.kind,
                  header.number,
                  header.acknowledged,
                  {buffer_.get() + begin_ + header_bytes, header.payload_bytes}};
        begin_ += header_bytes + header.payload_bytes;
        return Status::ok;
      }
    }
    if (const Status status = fill(timeout_ms); status != Status::ok) return status;
  }
}

Status FrameSender::send(wire::FrameKind kind, std::span<const std::byte> payload,
                         uint64_t acknowledged) {
  wire::FrameHeader header = make_header(kind, payload.size(), ++number_, acknowledged);
  iovec parts[2] = {{&header, header_bytes},
                    {const_cast<std::byte*>(payload.data()), payload.size()}};
  return from(transport::send_all(channel_, parts));
}

Status FrameSender::queue(wire::FrameKind kind, std::span<const std::byte> payload,
                          uint64_t acknowledged) {
  const wire::FrameHeader header = make_header(kind, payload.size(), ++number_, acknowledged);
  const auto* head = reinterpret_cast<const std::byte*>(&header);
  rest_.insert(rest_.end(), head, head + header_bytes);
  rest_.insert(rest_.end(), payload.begin(), payload.end());
  return flush();
}

Status FrameSender::flush() {
  while (queued_bytes() != 0) {
    size_t sent = 0;
    const transport::Status status =
        transport::send_some(channel_, std::span(rest_).subspan(rest_begin_), &sent);
    rest_begin_ += sent;
    if (status != transport::Status::ok) return from(status);
  }
  rest_.clear();
  rest_begin_ = 0;
  return Status::ok;
}

}  // namespace outboard::link
