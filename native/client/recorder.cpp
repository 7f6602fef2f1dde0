// The recorder's file: appended to by one write per record, so that threads need no lock.
// SPDX-License-Identifier: Apache-2.0
#include "client/recorder.hpp"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/fds.hpp"
#include "base/log.hpp"
#include "client/futex.hpp"
#include "client/process.hpp"

namespace outboard::client {
namespace {

constexpr char magic[8] = {'O', 'B', 'R', 'E', 'C', '1', '\n', 0};

struct RecordHeader {
  uint8_t direction;
  uint8_t zero[3];
  uint32_t bytes;
  uint64_t time_ns;
};
static_assert(sizeof(RecordHeader) == 16);

}  // namespace

int Recorder::fd_ = -1;

void Recorder::open() {
  const char* path = ::secure_getenv("OUTBOARD_RECORD");
  if (path == nullptr || *path == 0 || fd_ >= 0) return;
  UniqueFd fd(::open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600));
  if (!fd) {
    say("cannot record to %s: %s; nothing is recorded", path, ::strerror(errno));
    return;
  }
  fd = raised(std::move(fd));
  if (::write(fd.get(), magic, sizeof magic) != static_cast<ssize_t>(sizeof magic)) return;
  close_in_child(fd.get());
  fd_ = fd.release();
}

void Recorder::bytes(Direction direction, std::span<const std::byte> content) {
  if (on()) write(direction, {}, content);
}

void Recorder::frame(Direction direction, wire::FrameKind kind, uint64_t number,
                     uint64_t acknowledged, std::span<const std::byte> payload) {
  if (!on()) return;
  wire::FrameHeader header;
  header.payload_bytes = static_cast<uint32_t>(payload.size());
  header.kind = kind;
  header.number = number;
  header.acknowledged = acknowledged;
  write(direction, std::as_bytes(std::span(&header, 1)), payload);
}

void Recorder::write(Direction direction, std::span<const std::byte> head,
                     std::span<const std::byte> content) {
  RecordHeader record{};
  record.direction = static_cast<uint8_t>(direction);
  record.bytes = static_cast<uint32_t>(head.size() + content.size());
  record.time_ns = now_ns();
  const iovec parts[3] = {{&record, sizeof record},
                          {const_cast<std::byte*>(head.data()), head.size()},
                          {const_cast<std::byte*>(content.data()), content.size()}};
  [[maybe_unused]] const ssize_t written = ::writev(fd_, parts, 3);
}

}  // namespace outboard::client
