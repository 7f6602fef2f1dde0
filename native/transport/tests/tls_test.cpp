// TLS with a pre-shared key: bytes arrive as they were sent, both ways at once; nothing without the
// key. SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "transport/tls.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <future>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "transport/tcp.hpp"

using namespace outboard;
using transport::Channel;
using transport::Status;
using transport::Tls;

namespace {

constexpr int patience_ms = 60'000;

using Key = std::array<uint8_t, 32>;
constexpr Key right = {1, 2, 3};
constexpr Key wrong = {1, 2, 4};

struct Sockets {
  UniqueFd a, b;
  Sockets() {
    int fds[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    a.reset(fds[0]);
    b.reset(fds[1]);
  }
};

struct Pair : Sockets {
  std::unique_ptr<Tls> client, server;
  std::string client_error, server_error;

  explicit Pair(const Key& of_client = right, const Key& of_server = right) {
    auto accepted = std::async(std::launch::async, [&] {
      return Tls::handshake(b.get(), Tls::Side::server, of_server, patience_ms, &server_error);
    });
    client = Tls::handshake(a.get(), Tls::Side::client, of_client, patience_ms, &client_error);
    if (!client) a.reset();
    server = accepted.get();
  }
  Channel near() const { return {a.get(), client.get()}; }
  Channel far() const { return {b.get(), server.get()}; }
};

std::vector<char> noise(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<char> bytes(size);
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

Status send_whole(Channel to, std::vector<char> bytes) {
  iovec part{bytes.data(), bytes.size()};
  return transport::send_all(to, {&part, 1});
}

std::vector<char> receive_whole(Channel from, size_t size) {
  std::vector<char> bytes(size);
  if (transport::receive_all(from, bytes.data(), size, patience_ms) != Status::ok) bytes.clear();
  return bytes;
}

}  // namespace

TEST_CASE("who has the key talks with who has it") {
  const Pair pair;
  REQUIRE_MESSAGE(pair.client, pair.client_error);
  REQUIRE_MESSAGE(pair.server, pair.server_error);
  const auto sent = noise(100, 1);
  CHECK(send_whole(pair.near(), sent) == Status::ok);
  CHECK(receive_whole(pair.far(), sent.size()) == sent);
  CHECK(send_whole(pair.far(), sent) == Status::ok);
  CHECK(receive_whole(pair.near(), sent.size()) == sent);
}

TEST_CASE("another key is refused on both sides") {
  const Pair pair(right, wrong);
  CHECK_FALSE(pair.client);
  CHECK_FALSE(pair.server);
  CHECK_FALSE(pair.client_error.empty());
  CHECK_FALSE(pair.server_error.empty());
}

TEST_CASE("who does not speak TLS is refused") {
  const Sockets sockets;
  std::string error;
  const auto text = noise(200, 2);
  CHECK(send_whole(sockets.a.get(), text) == Status::ok);
  CHECK_FALSE(Tls::handshake(sockets.b.get(), Tls::Side::server, right, patience_ms, &error));
  CHECK_FALSE(error.empty());
}

TEST_CASE("who says nothing is not waited for") {
  const Sockets sockets;
  std::string error;
  CHECK_FALSE(Tls::handshake(sockets.b.get(), Tls::Side::server, right, 50, &error));
  CHECK(error == "no answer in time");
}

TEST_CASE("nothing of what is sent can be read on the way") {
  const Pair pair;
  const std::string secret(64, 's');
  CHECK(send_whole(pair.near(), {secret.begin(), secret.end()}) == Status::ok);
  std::array<char, 4096> seen{};
  const ssize_t count = ::recv(pair.b.get(), seen.data(), seen.size(), 0);
  REQUIRE(count > 64);
  const std::string text(seen.data(), static_cast<size_t>(count));
  CHECK(text.find("ssss") == std::string::npos);
}

TEST_CASE("a changed byte ends the connection") {
  const Sockets relay;
  Pair pair;
  CHECK(send_whole(pair.near(), noise(64, 3)) == Status::ok);
  std::array<char, 4096> record{};
  const ssize_t count = ::recv(pair.b.get(), record.data(), record.size(), MSG_PEEK);
  REQUIRE(count > 0);
  REQUIRE(::recv(pair.b.get(), record.data(), static_cast<size_t>(count), 0) == count);
  record[static_cast<size_t>(count) - 1] ^= 1;
  // Back into the same stream, through the other end's plain socket.
  REQUIRE(::send(pair.a.get(), record.data(), static_cast<size_t>(count), 0) == count);
  size_t received = 0;
  std::array<std::byte, 64> to{};
  CHECK(transport::receive_some(pair.far(), to, &received, patience_ms) == Status::failed);
}

TEST_CASE("large transfers both ways at once arrive whole") {
  const Pair pair;
  const auto up = noise(24 << 20, 4), down = noise(24 << 20, 5);
  auto far_sends = std::async(std::launch::async, [&] { return send_whole(pair.far(), down); });
  auto far_reads =
      std::async(std::launch::async, [&] { return receive_whole(pair.far(), up.size()); });
  auto near_sends = std::async(std::launch::async, [&] { return send_whole(pair.near(), up); });
  CHECK(receive_whole(pair.near(), down.size()) == down);
  CHECK(far_reads.get() == up);
  CHECK(near_sends.get() == Status::ok);
  CHECK(far_sends.get() == Status::ok);
}

TEST_CASE("who must not wait gets rid of everything in time") {
  const Pair pair;
  const auto bytes = noise(8 << 20, 6);
  auto reading =
      std::async(std::launch::async, [&] { return receive_whole(pair.far(), bytes.size()); });
  std::span<const std::byte> rest = std::as_bytes(std::span(bytes));
  Status status = Status::again;
  while (!rest.empty() || status == Status::again) {
    size_t sent = 0;
    status = transport::send_some(pair.near(), rest, &sent);
    rest = rest.subspan(sent);
    REQUIRE((status == Status::ok || status == Status::again));
    if (status == Status::again) std::this_thread::yield();
  }
  CHECK(pair.client->unsent() == 0);
  CHECK(reading.get() == bytes);
}

TEST_CASE("nothing is left where a poll would not see it") {
  const Pair pair;
  const auto bytes = noise(3000, 7);
  for (int i = 0; i < 20; ++i) CHECK(send_whole(pair.near(), bytes) == Status::ok);
  std::vector<std::byte> to(1 << 20);
  size_t total = 0;
  while (total < 20 * bytes.size()) {
    size_t received = 0;
    REQUIRE(transport::receive_some(pair.far(), to, &received, patience_ms) == Status::ok);
    total += received;
    // Either the socket still has something, or everything has been given out.
    char ignored = 0;
    const bool more = ::recv(pair.b.get(), &ignored, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
    CHECK((more || total == 20 * bytes.size()));
  }
}

TEST_CASE("the other side's end is an end") {
  Pair pair;
  pair.a.reset();
  size_t received = 0;
  std::array<std::byte, 64> to{};
  CHECK(transport::receive_some(pair.far(), to, &received, patience_ms) == Status::closed);
}
