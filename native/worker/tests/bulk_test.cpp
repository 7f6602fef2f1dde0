// Copies above 64 KiB, on connections of their own.
// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <random>

#include "worker/tests/drivers.hpp"
#include "worker/tests/peer.hpp"

namespace outboard::worker {
namespace {

namespace command = wire::command;
using Content = std::vector<std::byte>;

Content random_bytes(size_t count, unsigned seed) {
  std::mt19937_64 random(seed);
  Content content(count);
  for (size_t at = 0; at < count; at += 8) {
    const uint64_t value = random();
    std::memcpy(content.data() + at, &value, std::min<size_t>(8, count - at));
  }
  return content;
}

/// The client's bulk end, with its window and pieces; one thread.
class BulkEnd {
 public:
  explicit BulkEnd(int fd) : fd_(fd) {}

  void send(uint64_t stream, uint64_t copy, const Content& content,
            size_t piece_bytes = wire::bulk_piece_bytes) {
    send_from(stream, copy, content, 0, piece_bytes);
  }
  void send_from(uint64_t stream, uint64_t copy, const Content& content, size_t from,
                 size_t piece_bytes = wire::bulk_piece_bytes) {
    for (size_t offset = from; offset < content.size(); offset += piece_bytes) {
      const size_t bytes = std::min(piece_bytes, content.size() - offset);
      while (outstanding_[stream] + bytes > wire::bulk_window_bytes) receive();
      wire::BulkHeader header{copy, offset, bytes};
      iovec parts[2] = {{&header, sizeof header},
                        {const_cast<std::byte*>(content.data() + offset), bytes}};
      if (transport::send_all(fd_, parts) != transport::Status::ok)
        throw std::runtime_error("bulk");
      outstanding_[stream] += bytes;
    }
  }
  Content receive_copy(uint64_t copy, size_t bytes) {
    while (received_[copy].size() < bytes) receive();
    return std::move(received_[copy]);
  }
  uint64_t outstanding(uint64_t stream) const { return outstanding_.at(stream); }
  void receive_credit(uint64_t stream) {
    while (outstanding_[stream] != 0) receive();
  }

 private:
  void receive() {
    wire::BulkHeader header;
    if (transport::receive_all(fd_, &header, sizeof header, 20'000) != transport::Status::ok) {
      throw std::runtime_error("no bulk bytes came");
    }
    if (header.bytes == 0) {
      outstanding_[header.copy] -= header.offset;
      return;
    }
    Content& content = received_[header.copy];
    REQUIRE(header.offset == content.size());
    content.resize(content.size() + header.bytes);
    if (transport::receive_all(fd_, content.data() + header.offset, header.bytes, 20'000) !=
        transport::Status::ok) {
      throw std::runtime_error("bulk bytes are missing");
    }
  }

  int fd_;
  std::map<uint64_t, uint64_t> outstanding_;
  std::map<uint64_t, Content> received_;
};

command::CopyToDeviceBulk to_device(uint64_t stream, uint64_t copy, uint64_t address,
                                    size_t bytes) {
  command::CopyToDeviceBulk command;
  command.stream = stream;
  command.copy = copy;
  command.destination = address;
  command.bytes = bytes;
  return command;
}

command::CopyToHostSync to_host(uint64_t stream, uint64_t copy, uint64_t address, size_t bytes) {
  command::CopyToHostSync command;
  command.stream = stream;
  command.copy = copy;
  command.source = address;
  command.bytes = bytes;
  return command;
}

TEST_CASE("bytes of any length go there and back") {
  Peer peer(software_gpu());
  peer.start();
  BulkEnd bulk(peer.open_bulk());
  const uint64_t stream = peer.stream();
  uint64_t copy = 1;
  for (const size_t bytes : {size_t{65537}, size_t{1} << 20, (size_t{3} << 20) + 5,
                             (size_t{20} << 20) + 12345, size_t{100'000}}) {
    const uint64_t address = peer.allocate(bytes);
    const Content content = random_bytes(bytes, static_cast<unsigned>(bytes));
    peer.send(to_device(stream, copy, address, bytes));
    bulk.send(stream, copy, content, copy % 2 == 0 ? 333'333 : wire::bulk_piece_bytes);
    ++copy;
    const uint32_t request = peer.ask(to_host(stream, copy, address, bytes));
    CHECK(bulk.receive_copy(copy, bytes) == content);
    CHECK(peer.answer<command::CopyToHostSync>(request).result == CUDA_SUCCESS);
    ++copy;
  }
  bulk.receive_credit(stream);
  CHECK(peer.finish() == 0);
}

TEST_CASE("a copy to memory that is not the client's is refused, and the stream goes on") {
  Peer peer(software_gpu());
  peer.start();
  BulkEnd bulk(peer.open_bulk());
  const uint64_t stream = peer.stream();
  constexpr size_t bytes = 2 << 20;
  const uint64_t address = peer.allocate(bytes);
  const Content content = random_bytes(bytes, 1);
  peer.append(to_device(stream, 1, address + 1, bytes));
  peer.append(to_device(stream, 2, address, bytes));
  peer.flush();
  bulk.send(stream, 1, random_bytes(bytes, 2));
  bulk.send(stream, 2, content);
  const uint32_t request = peer.ask(to_host(stream, 3, address, bytes));
  CHECK(bulk.receive_copy(3, bytes) == content);
  CHECK(peer.answer<command::CopyToHostSync>(request).result == CUDA_SUCCESS);
  CHECK(peer.take(wire::MessageKind::refused, static_cast<uint64_t>(wire::Op::CopyToDeviceBulk))
            .header.result == CUDA_ERROR_INVALID_VALUE);
  bulk.receive_credit(stream);
}

// Each stream's second copy waits for the other's first by an event, and the bytes of the second
// come first: with staging for all streams together this would be a deadlock.
TEST_CASE("two copies that are crossed by events, larger than the staging, both end") {
  Peer peer(software_gpu());
  peer.start();
  BulkEnd bulk(peer.open_bulk());
  constexpr size_t bytes = 24 << 20;
  const uint64_t streams[2] = {peer.stream(), peer.stream()};
  const uint64_t events[2] = {peer.event(), peer.event()};
  const uint64_t at[2] = {peer.allocate(bytes), peer.allocate(bytes)};
  const Content content[2] = {random_bytes(bytes, 3), random_bytes(bytes, 4)};
  command::StreamWaitEvent wait;
  command::EventRecord record;
  peer.append(to_device(streams[0], 1, at[0], bytes));
  record.stream = streams[0];
  record.event = events[0];
  peer.append(record);
  wait.stream = streams[1];
  wait.event = events[0];
  peer.append(wait);
  peer.append(to_device(streams[1], 2, at[1], bytes));
  record.stream = streams[1];
  record.event = events[1];
  peer.append(record);
  wait.stream = streams[0];
  wait.event = events[1];
  peer.append(wait);
  peer.append(to_device(streams[0], 3, at[1], bytes));
  peer.flush();
  // As much of the waiting copy as its window allows, before anything of the one it waits for.
  bulk.send(streams[1], 2, Content(content[1].begin(), content[1].begin() + (8 << 20)));
  bulk.send(streams[0], 1, content[0]);
  bulk.receive_credit(streams[1]);
  CHECK(bulk.outstanding(streams[1]) == 0);
  // The rest of copy 2 continues where it stopped.
  bulk.send_from(streams[1], 2, content[1], 8 << 20);
  bulk.send(streams[0], 3, content[0]);
  CHECK(peer.synchronize(streams[0]) == CUDA_SUCCESS);
  const uint32_t request = peer.ask(to_host(streams[0], 9, at[1], bytes));
  CHECK(bulk.receive_copy(9, bytes) == content[0]);
  CHECK(peer.answer<command::CopyToHostSync>(request).result == CUDA_SUCCESS);
}

TEST_CASE("a stream whose bytes do not come holds up no other") {
  Peer peer(software_gpu());
  peer.start();
  BulkEnd bulk(peer.open_bulk());
  constexpr size_t bytes = 12 << 20;
  const uint64_t slow = peer.stream();
  const uint64_t fast = peer.stream();
  const uint64_t at[2] = {peer.allocate(bytes), peer.allocate(bytes)};
  const Content content = random_bytes(bytes, 5);
  peer.append(to_device(slow, 1, at[0], bytes));
  peer.append(to_device(fast, 2, at[1], bytes));
  const uint32_t request = peer.ask(to_host(fast, 3, at[1], bytes));
  bulk.send(fast, 2, content);
  CHECK(bulk.receive_copy(3, bytes) == content);
  CHECK(peer.answer<command::CopyToHostSync>(request).result == CUDA_SUCCESS);
  bulk.send(slow, 1, content);
  CHECK(peer.synchronize(slow) == CUDA_SUCCESS);
}

TEST_CASE("a session ends although its bulk bytes are not read") {
  Peer peer(software_gpu());
  peer.start();
  const int socket = peer.open_bulk();
  constexpr size_t bytes = 1 << 20;
  const uint64_t address = peer.allocate(bytes);
  peer.ask(to_host(peer.stream(), 1, address, bytes));
  wire::BulkHeader header;  // the only piece is on its way, and fills the socket
  REQUIRE(transport::receive_all(socket, &header, sizeof header, 20'000) == transport::Status::ok);
  peer.finish();
}

TEST_CASE("more bytes than a stream's window, or pieces out of order, break the protocol") {
  for (const bool overrun : {true, false}) {
    Peer peer(software_gpu());
    peer.start();
    const int fd = peer.open_bulk();
    const uint64_t stream = peer.stream();
    const uint64_t address = peer.allocate(32 << 20);
    command::HostFunction hold;
    hold.stream = stream;
    hold.function = 1;
    peer.append(hold);
    peer.send(to_device(stream, 1, address, 32 << 20));
    const Content piece(1 << 20);
    for (uint64_t i = 0; i < (overrun ? 9 : 2); ++i) {
      wire::BulkHeader header{1, (overrun ? i : i * 2) << 20, 1 << 20};
      iovec parts[2] = {{&header, sizeof header},
                        {const_cast<std::byte*>(piece.data()), piece.size()}};
      if (transport::send_all(fd, parts) != transport::Status::ok) break;
    }
    CHECK(peer.join() == exit_protocol);
  }
}

}  // namespace
}  // namespace outboard::worker
