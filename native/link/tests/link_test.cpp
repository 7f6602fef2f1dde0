// Frames survive any cut of the byte stream, and anything but the next right frame breaks the link.
// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "link/link.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <cstring>
#include <random>
#include <string>
#include <thread>

using namespace outboard;

namespace {

struct Pair {
  UniqueFd a, b;
  Pair() {
    int fds[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    a.reset(fds[0]);
    b.reset(fds[1]);
  }
};

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void write_header(int fd, uint32_t bytes, uint16_t kind, uint64_t number) {
  wire::FrameHeader header;
  header.payload_bytes = bytes;
  header.kind = static_cast<wire::FrameKind>(kind);
  header.number = number;
  REQUIRE(::send(fd, &header, sizeof header, 0) == sizeof header);
}

}  // namespace

TEST_CASE("a frame that arrives byte by byte is whole, aligned and numbered") {
  const Pair pair;
  link::FrameReceiver receiver(pair.b.get());
  link::Frame frame;
  std::string wire_bytes;
  {
    const Pair recorded;
    link::FrameSender sender(recorded.a.get());
    CHECK(sender.send(wire::FrameKind::hello, bytes_of("odd"), 0) == link::Status::ok);
    CHECK(sender.send(wire::FrameKind::batch, bytes_of("12345678"), 5) == link::Status::ok);
    char buffer[256];
    const ssize_t count = ::recv(recorded.b.get(), buffer, sizeof buffer, 0);
    wire_bytes.assign(buffer, static_cast<size_t>(count));
  }
  size_t frames = 0;
  for (const char byte : wire_bytes) {
    REQUIRE(::send(pair.a.get(), &byte, 1, 0) == 1);
    while (receiver.next(&frame, 0) == link::Status::ok) {
      CHECK(frame.number == ++frames);
      CHECK(reinterpret_cast<uintptr_t>(frame.payload.data()) % 8 == 0);
      CHECK(text_of(frame.payload) == (frames == 1 ? "odd" : "12345678"));
      CHECK(frame.acknowledged == (frames == 1 ? 0 : 5));
    }
  }
  CHECK(frames == 2);
}

TEST_CASE("many frames of random lengths arrive in order while the sender does not block") {
  const uint64_t seed = 20261122;
  MESSAGE("seed " << seed);
  std::mt19937_64 random(seed);
  const Pair pair;
  std::vector<std::string> sent(300);
  for (auto& text : sent) {
    text.assign(8 * (random() % 8192), static_cast<char>('a' + random() % 26));
  }
  std::thread reader([&] {
    link::FrameReceiver receiver(pair.b.get());
    for (const auto& text : sent) {
      link::Frame frame;
      REQUIRE(receiver.next(&frame, -1) == link::Status::ok);
      REQUIRE(text_of(frame.payload) == text);
    }
  });
  link::FrameSender sender(pair.a.get());
  for (const auto& text : sent) {
    const link::Status status = sender.queue(wire::FrameKind::batch, bytes_of(text), 0);
    REQUIRE((status == link::Status::ok || status == link::Status::again));
  }
  while (sender.queued_bytes() != 0) REQUIRE(sender.flush() != link::Status::closed);
  reader.join();
}

TEST_CASE("what is not the next right frame breaks the link and says why") {
  struct Case {
    uint32_t bytes;
    uint16_t kind;
    uint64_t number;
    const char* says;
  };
  const Case wrong[] = {{8u << 20, 2, 1, "longer than the limit"},
                        {0xffffffff, 2, 1, "longer than the limit"},
                        {0, 9, 1, "unknown kind"},
                        {0, 0, 1, "unknown kind"},
                        {0, 2, 2, "came after frame 0"},
                        {0, 2, 0, "came after frame 0"}};
  for (const Case& c : wrong) {
    const Pair pair;
    link::FrameReceiver receiver(pair.b.get());
    link::Frame frame;
    write_header(pair.a.get(), c.bytes, c.kind, c.number);
    CHECK(receiver.next(&frame, 1000) == link::Status::broken);
    CHECK(receiver.error().find(c.says) != std::string::npos);
  }
}

TEST_CASE("an end in the middle of a frame is an end, not a frame") {
  Pair pair;
  link::FrameReceiver receiver(pair.b.get());
  link::Frame frame;
  write_header(pair.a.get(), 64, 2, 1);
  CHECK(receiver.next(&frame, 0) == link::Status::again);
  pair.a.reset();
  CHECK(receiver.next(&frame, 1000) == link::Status::closed);
}
