// Recordings are read within their bounds and played in their order.
// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "generated/commands.hpp"
#include "replay/player.hpp"
#include "replay/recording.hpp"
#include "wire/frame.hpp"
#include "worker/tests/window.hpp"

namespace outboard::replay {
namespace {

using Bytes = std::vector<std::byte>;

void append(Bytes& to, const void* from, size_t bytes) {
  const size_t at = to.size();
  to.resize(at + bytes);
  if (bytes != 0) std::memcpy(to.data() + at, from, bytes);
}

/// Writes a recording as the client does.
class Writer {
 public:
  Writer() { append(bytes, "OBREC1\n", 8); }
  void record(Direction direction, const Bytes& content) {
    const uint8_t head[4] = {static_cast<uint8_t>(direction), 0, 0, 0};
    const auto length = static_cast<uint32_t>(content.size());
    const uint64_t time = 1;
    append(bytes, head, 4);
    append(bytes, &length, 4);
    append(bytes, &time, 8);
    append(bytes, content.data(), content.size());
  }
  void frame(Direction direction, wire::FrameKind kind, const Bytes& payload) {
    wire::FrameHeader header;
    header.payload_bytes = static_cast<uint32_t>(payload.size());
    header.kind = kind;
    header.number = ++numbers_[static_cast<int>(direction)];
    Bytes whole;
    append(whole, &header, sizeof header);
    append(whole, payload.data(), payload.size());
    record(direction, whole);
  }
  Bytes bytes;

 private:
  uint64_t numbers_[2] = {};
};

template <typename Command>
void add(Bytes& batch, const Command& command, uint32_t request) {
  wire::CommandHeader header;
  header.payload_bytes = static_cast<uint32_t>(command.encoded_bytes());
  header.op = static_cast<uint16_t>(Command::op);
  header.context = 1;
  header.request = request;
  append(batch, &header, sizeof header);
  Bytes payload(header.payload_bytes);
  wire::Writer writer(payload.data());
  command.encode(writer);
  append(batch, payload.data(), payload.size());
}

Bytes reply(uint64_t request, int32_t result) {
  wire::MessageHeader header;
  header.kind = wire::MessageKind::reply;
  header.subject = request;
  header.result = result;
  Bytes batch;
  append(batch, &header, sizeof header);
  return batch;
}

constexpr uint64_t one = uint64_t{1} << 32 | 1;

Bytes small_recording(int32_t recorded_result) {
  Writer writer;
  const std::string hello = R"({"pid": 0, "windows": [{"base": )" +
                            std::to_string(worker::test_window_base) + R"(, "size": )" +
                            std::to_string(worker::test_window_bytes) + "}]}";
  Bytes payload;
  append(payload, hello.data(), hello.size());
  writer.frame(Direction::to_server, wire::FrameKind::hello, payload);
  const std::string welcome = std::string("OUTW\1\0\0\0....", 12) +
                              R"({"devices": [{"total_bytes": 1073741824}], "window": "granted"})";
  payload.clear();
  append(payload, welcome.data(), welcome.size());
  writer.record(Direction::welcome, payload);
  payload.clear();
  add(payload, wire::command::ContextRetainPrimary{.context = one, .legacy_stream = one}, 1);
  add(payload, wire::command::MemoryAllocate{.bytes = 8 << 20}, 2);
  writer.frame(Direction::to_server, wire::FrameKind::batch, payload);
  writer.frame(Direction::from_server, wire::FrameKind::batch, reply(1, 0));
  writer.frame(Direction::from_server, wire::FrameKind::batch, reply(2, 0));
  payload.clear();
  add(payload,
      wire::command::CopyToDeviceBulk{
          .stream = one, .copy = 1, .destination = worker::test_window_base, .bytes = 8 << 20},
      0);
  add(payload, wire::command::StreamSynchronize{.stream = one}, 3);
  writer.frame(Direction::to_server, wire::FrameKind::batch, payload);
  writer.frame(Direction::from_server, wire::FrameKind::batch, reply(3, recorded_result));
  return std::move(writer.bytes);
}

const worker::Driver& null_driver() {
  static const auto driver = [] {
    const char* path = std::getenv("OUTBOARD_TEST_NULLDRIVER");
    std::string error;
    auto opened = worker::open_driver(path ? path : "", &error);
    REQUIRE_MESSAGE(opened, error);
    REQUIRE(opened->cuInit(0) == CUDA_SUCCESS);
    return opened;
  }();
  return *driver;
}

TEST_CASE("a recording is played, its bulk bytes too") {
  std::vector<Record> records;
  std::string error;
  REQUIRE(parse_recording(small_recording(0), &records, &error));
  const Outcome outcome = play(records, null_driver());
  CHECK(outcome.error == "");
  CHECK(outcome.exit_code == 0);
  CHECK(outcome.commands == 4);
  CHECK(outcome.replies == 3);
  CHECK(outcome.differences.empty());
}

TEST_CASE("an answer with another result is told") {
  std::vector<Record> records;
  std::string error;
  REQUIRE(parse_recording(small_recording(700), &records, &error));
  const Outcome outcome = play(records, null_driver());
  REQUIRE(outcome.differences.size() == 1);
  CHECK(outcome.differences[0].find("StreamSynchronize") != std::string::npos);
}

TEST_CASE("what is no recording is refused, and a cut one is read as far as it goes") {
  const Bytes whole = small_recording(0);
  std::vector<Record> all;
  std::string error;
  REQUIRE(parse_recording(whole, &all, &error));
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    std::vector<Record> records;
    const bool read = parse_recording(std::span(whole).first(bytes), &records, &error);
    CHECK(read == (bytes >= 8));
    CHECK(records.size() < all.size());
  }
  Bytes wrong = whole;
  wrong[8] = std::byte{9};
  std::vector<Record> records;
  CHECK(!parse_recording(wrong, &records, &error));
  records.clear();
  wrong = whole;
  wrong[24] ^= std::byte{1};  // a frame's length
  CHECK(!parse_recording(wrong, &records, &error));
}

}  // namespace
}  // namespace outboard::replay
