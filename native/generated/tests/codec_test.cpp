// Codecs: what is encoded comes back, and nothing malformed is decoded.
// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <array>
#include <string_view>
#include <vector>

#include "generated/protocol.hpp"

namespace outboard::wire {
namespace {

// A payload as it lies in a frame: 8-aligned.
struct Payload {
  std::vector<uint64_t> words;
  size_t bytes = 0;

  std::byte* data() { return reinterpret_cast<std::byte*>(words.data()); }
  Reader reader() { return Reader({data(), bytes}); }
};

template <typename Message>
Payload encoded(const Message& message) {
  Payload payload;
  payload.bytes = message.encoded_bytes();
  REQUIRE(payload.bytes % 8 == 0);
  payload.words.resize(payload.bytes / 8 + 1, 0xeeeeeeeeeeeeeeee);
  Writer writer(payload.data());
  message.encode(writer);
  REQUIRE(writer.size() == payload.bytes);
  return payload;
}

template <typename Message>
bool decodes(Payload& payload) {
  Message message;
  Reader reader = payload.reader();
  return message.decode(reader);
}

std::span<const std::byte> bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

TEST_CASE("a launch comes back with its parameters") {
  const command::Launch sent{.stream = 7,
                             .function = 8,
                             .grid_x = 1,
                             .grid_y = 2,
                             .grid_z = 3,
                             .block_x = 4,
                             .block_y = 5,
                             .block_z = 6,
                             .shared_bytes = 9,
                             .flags = 1,
                             .attributes = bytes("abcdefghi"),
                             .params = bytes("xyz")};
  Payload payload = encoded(sent);
  command::Launch got;
  Reader reader = payload.reader();
  REQUIRE(got.decode(reader));
  CHECK(got.stream == 7);
  CHECK(got.function == 8);
  CHECK(got.block_z == 6);
  CHECK(got.flags == 1);
  CHECK(std::string_view(reinterpret_cast<const char*>(got.attributes.data()),
                         got.attributes.size()) == "abcdefghi");
  CHECK(got.params.size() == 3);
  CHECK(reinterpret_cast<uintptr_t>(got.params.data()) % 8 == 0);
  CHECK(got.params.data() > payload.data());
}

TEST_CASE("lists, strings and hashes come back") {
  const std::array<uint64_t, 3> options = {1, 2, 3};
  command::ModuleLoad sent{.module = 5, .library = 1, .options = options};
  sent.hash[31] = 0xab;
  Payload payload = encoded(sent);
  command::ModuleLoad got;
  Reader reader = payload.reader();
  REQUIRE(got.decode(reader));
  CHECK(got.hash == sent.hash);
  REQUIRE(got.options.size() == 3);
  CHECK(got.options[2] == 3);

  const std::array<uint32_t, 3> layout = {0, 8, 16};
  Payload answer = encoded(command::ModuleGetFunction::Reply{.offsets_sizes = layout, .name = "f"});
  command::ModuleGetFunction::Reply reply;
  Reader replies = answer.reader();
  REQUIRE(reply.decode(replies));
  CHECK(reply.offsets_sizes[1] == 8);
  CHECK(reply.attributes.empty());
  CHECK(reply.name == "f");
}

TEST_CASE("an empty message takes no bytes and refuses any") {
  CHECK(command::ContextSynchronize{}.encoded_bytes() == 0);
  Payload payload;
  CHECK(decodes<command::ContextSynchronize>(payload));
  payload.words.resize(1);
  payload.bytes = 8;
  CHECK_FALSE(decodes<command::ContextSynchronize>(payload));
}

TEST_CASE("a payload cut anywhere is refused, and so is a longer one") {
  Payload payload = encoded(command::Link{.names = "a\0b", .content = bytes("0123456789")});
  const size_t whole = payload.bytes;
  CHECK(decodes<command::Link>(payload));
  for (payload.bytes = 0; payload.bytes < whole; ++payload.bytes) {
    CHECK_FALSE(decodes<command::Link>(payload));
  }
  payload.bytes = whole + 8;
  CHECK_FALSE(decodes<command::Link>(payload));
}

TEST_CASE("reserved bytes, padding and the words after lengths must be zero") {
  Payload reserved = encoded(command::ContextDestroy{.context = 1, .reset = 1});
  reserved.data()[12] = std::byte{1};
  CHECK_FALSE(decodes<command::ContextDestroy>(reserved));

  const size_t fixed = command::CopyToDevice::fixed_bytes;
  Payload padding = encoded(command::CopyToDevice{.content = bytes("abc")});
  padding.data()[fixed + 8 + 3] = std::byte{1};
  CHECK_FALSE(decodes<command::CopyToDevice>(padding));

  Payload length = encoded(command::CopyToDevice{.content = bytes("abc")});
  length.data()[fixed + 4] = std::byte{1};
  CHECK_FALSE(decodes<command::CopyToDevice>(length));
}

TEST_CASE("a length that is no multiple of its elements or beyond all bytes is refused") {
  const std::array<uint64_t, 2> options = {1, 2};
  for (const uint8_t low : {uint8_t{15}, uint8_t{255}}) {
    Payload payload = encoded(command::Link{.options = options});
    payload.data()[command::Link::fixed_bytes] = std::byte{low};
    CHECK_FALSE(decodes<command::Link>(payload));
  }
  Payload huge = encoded(command::CopyToDevice{.content = bytes("abc")});
  for (size_t i = 0; i < 4; ++i)
    huge.data()[command::CopyToDevice::fixed_bytes + i] = std::byte{255};
  CHECK_FALSE(decodes<command::CopyToDevice>(huge));
}

TEST_CASE("facts about commands are found by number") {
  CHECK_FALSE(is_op(0));
  CHECK(is_op(1));
  CHECK_FALSE(is_op(static_cast<uint16_t>(Op::count)));
  CHECK(std::string_view(op_name(Op::Launch)) == "Launch");
  CHECK(std::string_view(op_name(static_cast<Op>(60000))) == "unknown");
  CHECK(op_info(Op::Launch).stream_offset == 0);
  CHECK(op_info(Op::StreamQuery).stream_offset == -1);
  CHECK(op_info(Op::MemoryFree).klass == Class::deferred);
  CHECK(protocol_hash_text.size() == 64);
}

TEST_CASE("a command has the traits of its declaration and no other") {
  CHECK(op_info(Op::CopyToDevice).staged);
  CHECK_FALSE(op_info(Op::CopyToDevice).uncounted);
  CHECK_FALSE(op_info(Op::CopyToDeviceBulk).staged);
  CHECK(op_info(Op::HostFunction).uncounted);
  CHECK(op_info(Op::StreamDestroy).works_in_dead_context);
  CHECK_FALSE(op_info(Op::StreamDestroy).changes_launches);
  CHECK(op_info(Op::MemoryGetInfo).monitoring);
  // Of functions whose commands are generated.
  CHECK(op_info(Op::TexRefSetFlags).changes_launches);
  CHECK_FALSE(op_info(Op::TexRefGetFlags).changes_launches);
}

}  // namespace
}  // namespace outboard::wire
