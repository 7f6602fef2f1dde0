// Calls, order and death of a connection, against a server that the test plays on a socket pair.
// SPDX-License-Identifier: Apache-2.0
#include "client/connection.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

using namespace outboard;
using client::Answer;
using client::Connection;

namespace {

struct Quiet final : client::Listener {
  void progress(const wire::Progress& progress) override {
    completed[progress.stream] = progress.completed;
  }
  bool copied(uint64_t, std::span<const std::byte>) override { return false; }
  void host_function(uint64_t function) override { functions += function; }
  void graph_function(uint64_t, uint64_t) override {}
  void released(uint64_t) override {}
  void copy_failed(uint64_t) override {}
  void refused(wire::Op, client::Result result, uint64_t) override { refusal = result; }
  void fatal(client::Result, uint64_t) override {}
  void lost() override { ++losses; }
  std::map<uint64_t, uint64_t> completed;
  std::atomic<uint64_t> functions{0};
  std::atomic<int> refusal{0};
  std::atomic<int> losses{0};
};

void append_message(std::vector<std::byte>* batch, wire::MessageHeader header,
                    std::span<const std::byte> payload) {
  header.payload_bytes = static_cast<uint32_t>(payload.size());
  const size_t at = batch->size();
  batch->resize(at + sizeof header + wire::padded(payload.size()));
  std::memcpy(batch->data() + at, &header, sizeof header);
  if (!payload.empty())
    std::memcpy(batch->data() + at + sizeof header, payload.data(), payload.size());
}

// Calls `handle` for every command; what it appends to the batch is sent back.
struct Server {
  using Handle = std::function<void(const wire::CommandHeader&, std::span<const std::byte>,
                                    std::vector<std::byte>*)>;
  Server(int fd_given, Handle handle_given)
      : fd(fd_given), handle(std::move(handle_given)), thread([this] { run(); }) {}
  ~Server() {
    ::shutdown(fd, SHUT_RDWR);
    thread.join();
    ::close(fd);
  }
  void run() {
    link::FrameReceiver receiver(fd);
    link::FrameSender sender(fd);
    link::Frame frame;
    while (receiver.next(&frame, -1) == link::Status::ok) {
      if (frame.kind != wire::FrameKind::batch) continue;
      wire::BatchReader<wire::CommandHeader> commands(frame.payload);
      wire::CommandHeader header;
      std::span<const std::byte> payload;
      std::vector<std::byte> answer;
      while (commands.next(&header, &payload)) handle(header, payload, &answer);
      if (!commands.ok()) return;
      if (!answer.empty()) sender.send(wire::FrameKind::batch, answer, frame.number);
    }
  }
  int fd;
  Handle handle;
  std::thread thread;
};

struct Pair {
  explicit Pair(Server::Handle handle) {
    int fds[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    server = std::make_unique<Server>(fds[1], std::move(handle));
    // Its I/O thread is never joined: it lives as long as the process, as in a program.
    connection = new Connection(UniqueFd(fds[0]), "test", &listener);
    REQUIRE(connection->start());
  }
  Quiet& listener = *new Quiet;
  std::unique_ptr<Server> server;
  Connection* connection;
};

// Answers MemoryGetInfo with the free bytes as a number of its own.
Server::Handle counting(std::atomic<uint64_t>* commands) {
  return [commands](const wire::CommandHeader& header, std::span<const std::byte>,
                    std::vector<std::byte>* answer) {
    const uint64_t number = ++*commands;
    if (header.request == 0) return;
    wire::command::MemoryGetInfo::Reply reply;
    reply.free_bytes = number;
    reply.total_bytes = header.context;
    std::vector<std::byte> payload(reply.encoded_bytes());
    wire::Writer writer(payload.data());
    reply.encode(writer);
    wire::MessageHeader message;
    message.subject = header.request;
    append_message(answer, message, payload);
  };
}

}  // namespace

TEST_CASE("an answer comes after everything that was sent before it") {
  std::atomic<uint64_t> commands{0};
  Pair pair(counting(&commands));
  client::StreamProgress stream;
  for (uint64_t round = 1; round <= 200; ++round) {
    for (int i = 0; i < 50; ++i) {
      uint64_t count = 0;
      pair.connection->send(wire::command::StreamDestroy{.stream = 1}, 1, &stream, &count);
      REQUIRE(count == (round - 1) * 50 + static_cast<uint64_t>(i) + 1);
    }
    Answer<wire::command::MemoryGetInfo> answer;
    pair.connection->call(wire::command::MemoryGetInfo{}, 42, &answer);
    REQUIRE(answer.result == 0);
    REQUIRE(answer.reply.free_bytes == round * 51);
    REQUIRE(answer.reply.total_bytes == 42);
  }
}

TEST_CASE("a batch leaves although the program calls nothing more") {
  std::atomic<uint64_t> commands{0};
  Pair pair(counting(&commands));
  for (uint64_t i = 1; i <= 3; ++i) {
    pair.connection->send(wire::command::StreamDestroy{.stream = 1}, 1);
    while (commands.load() < i) std::this_thread::yield();  // ctest's limit is the hang guard
  }
}

TEST_CASE("threads that wait at the same time all get their own answers") {
  std::atomic<uint64_t> commands{0};
  Pair pair(counting(&commands));
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (uint32_t id = 1; id <= 8; ++id) {
    threads.emplace_back([&, id] {
      for (int i = 0; i < 500; ++i) {
        Answer<wire::command::MemoryGetInfo> answer;
        pair.connection->call(wire::command::MemoryGetInfo{}, id, &answer);
        if (answer.result != 0 || answer.reply.total_bytes != id) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("what nobody waits for is read all the same") {
  Pair pair(
      [](const wire::CommandHeader&, std::span<const std::byte>, std::vector<std::byte>* answer) {
        wire::MessageHeader message;
        message.kind = wire::MessageKind::host_function;
        message.subject = 5;
        append_message(answer, message, {});
      });
  pair.connection->send(wire::command::HostFunction{.stream = 1, .function = 5}, 1);
  while (pair.listener.functions.load() != 5) std::this_thread::yield();
}

TEST_CASE("a server that goes releases every waiter and fails every later call") {
  Pair pair([](const wire::CommandHeader&, std::span<const std::byte>, std::vector<std::byte>*) {});
  std::vector<std::thread> threads;
  std::atomic<int> lost{0};
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&] {
      Answer<wire::command::MemoryGetInfo> answer;
      pair.connection->call(wire::command::MemoryGetInfo{}, 1, &answer);
      if (answer.result == client::result::lost) ++lost;
    });
  }
  std::this_thread::yield();
  pair.server.reset();
  for (std::thread& thread : threads) thread.join();
  CHECK(lost == 6);
  CHECK(pair.listener.losses == 1);
  CHECK(pair.connection->send(wire::command::StreamDestroy{.stream = 1}, 1) ==
        client::result::lost);
}

TEST_CASE("a full ring blocks the caller until there is room, and nothing is lost") {
  std::atomic<uint64_t> bytes{0};
  Pair pair([&](const wire::CommandHeader& header, std::span<const std::byte> payload,
                std::vector<std::byte>* answer) {
    if (header.request == 0) {
      bytes += payload.size();
      return;
    }
    wire::command::MemoryGetInfo::Reply reply;
    wire::MessageHeader message;
    message.subject = header.request;
    append_message(answer, message, std::as_bytes(std::span(&reply, 1)).first(reply.fixed_bytes));
  });
  const std::vector<std::byte> content(60'000);
  wire::command::CopyToDevice copy;
  copy.content = content;
  for (int i = 0; i < 400; ++i) REQUIRE(pair.connection->send(copy, 1) == 0);
  Answer<wire::command::MemoryGetInfo> answer;
  pair.connection->call(wire::command::MemoryGetInfo{}, 1, &answer);
  CHECK(bytes == 400 * copy.encoded_bytes());
}

TEST_CASE("a reply that makes no sense ends the connection, not the program") {
  Pair pair([](const wire::CommandHeader& header, std::span<const std::byte>,
               std::vector<std::byte>* answer) {
    if (header.request == 0) return;
    const std::byte few[3] = {};
    wire::MessageHeader message;
    message.subject = header.request;
    append_message(answer, message, few);
  });
  Answer<wire::command::MemoryGetInfo> answer;
  pair.connection->call(wire::command::MemoryGetInfo{}, 1, &answer);
  CHECK(answer.result == client::result::lost);
}

TEST_CASE("a reply that comes in parts is put together") {
  const std::vector<std::byte> image(900'001, std::byte{7});
  Pair pair([&](const wire::CommandHeader& header, std::span<const std::byte>,
                std::vector<std::byte>* answer) {
    wire::command::Link::Reply reply;
    reply.image = image;
    std::vector<std::byte> payload(reply.encoded_bytes());
    wire::Writer writer(payload.data());
    reply.encode(writer);
    std::span<const std::byte> left = payload;
    wire::MessageHeader message;
    message.subject = header.request;
    while (left.size() > wire::reply_part_bytes) {
      message.kind = wire::MessageKind::reply_part;
      append_message(answer, message, left.first(wire::reply_part_bytes));
      left = left.subspan(wire::reply_part_bytes);
    }
    message.kind = wire::MessageKind::reply;
    append_message(answer, message, left);
  });
  for (int round = 0; round < 2; ++round) {
    Answer<wire::command::Link> answer;
    pair.connection->call(wire::command::Link{}, 1, &answer);
    REQUIRE(answer.result == 0);
    CHECK(std::ranges::equal(answer.reply.image, image));
  }
}
