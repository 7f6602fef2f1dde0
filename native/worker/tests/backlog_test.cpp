// The order in which kept commands may be issued.
// SPDX-License-Identifier: Apache-2.0
#include "worker/backlog.hpp"

#include <doctest/doctest.h>

#include <random>
#include <vector>

namespace outboard::worker {
namespace {

using Commands = Backlog<int>;

TEST_CASE("a stream's commands are issued in the order in which they came") {
  Commands backlog;
  Commands::Queue queue(StreamKind::independent);
  CHECK(backlog.first(queue, 1));
  backlog.push(queue, 1, 10);
  CHECK(backlog.first(queue, 1));
  CHECK(!backlog.first(queue, 2));
  backlog.push(queue, 2, 20);
  CHECK(queue.head().item == 10);
  backlog.pop(queue);
  CHECK(backlog.first(queue, 2));
  CHECK(queue.head().item == 20);
  backlog.pop(queue);
  CHECK(backlog.empty());
}

TEST_CASE("a command of the legacy stream waits for earlier ones of blocking streams") {
  Commands backlog;
  Commands::Queue legacy(StreamKind::legacy);
  Commands::Queue blocking(StreamKind::blocking);
  backlog.push(blocking, 5, 0);
  CHECK(!backlog.first(legacy, 6));
  CHECK(backlog.first(legacy, 4));
  backlog.pop(blocking);
  CHECK(backlog.first(legacy, 6));
}

TEST_CASE("a command of a blocking stream waits for earlier ones of the legacy stream") {
  Commands backlog;
  Commands::Queue legacy(StreamKind::legacy);
  Commands::Queue one(StreamKind::blocking);
  Commands::Queue other(StreamKind::blocking);
  backlog.push(legacy, 5, 0);
  CHECK(!backlog.first(one, 6));
  backlog.push(one, 6, 0);
  CHECK(backlog.first(other, 4));
  CHECK(!backlog.first(other, 7));
  backlog.pop(legacy);
  CHECK(backlog.first(other, 7));
}

TEST_CASE("what comes later does not hold up who waits for what came before") {
  Commands backlog;
  Commands::Queue one(StreamKind::independent);
  Commands::Queue other(StreamKind::independent);
  CHECK(backlog.issued(9));
  backlog.push(one, 5, 0);
  backlog.push(other, 7, 0);
  CHECK(backlog.issued(4));
  CHECK(!backlog.issued(5));
  backlog.pop(one);
  CHECK(backlog.issued(6));
  CHECK(!backlog.issued(7));
}

TEST_CASE("independent streams and two blocking streams do not wait for each other") {
  Commands backlog;
  Commands::Queue legacy(StreamKind::legacy);
  Commands::Queue blocking(StreamKind::blocking);
  Commands::Queue other(StreamKind::blocking);
  Commands::Queue independent(StreamKind::independent);
  backlog.push(blocking, 1, 0);
  CHECK(backlog.first(other, 2));
  CHECK(backlog.first(independent, 3));
  backlog.push(independent, 3, 0);
  backlog.pop(blocking);
  CHECK(backlog.first(legacy, 4));
}

TEST_CASE("clearing a queue frees those that waited for it") {
  Commands backlog;
  Commands::Queue legacy(StreamKind::legacy);
  Commands::Queue blocking(StreamKind::blocking);
  backlog.push(blocking, 1, 0);
  backlog.push(blocking, 2, 0);
  CHECK(backlog.items() == 2);
  CHECK(backlog.clear(blocking).size() == 2);
  CHECK(backlog.items() == 0);
  CHECK(backlog.first(legacy, 3));
}

// Whatever comes, something can always be issued, and issuing all of it keeps every order that CUDA
// has.
TEST_CASE("random commands all get issued, in an order that CUDA allows") {
  constexpr unsigned seed = 20261122;
  INFO("seed ", seed);
  std::mt19937 random(seed);  // NOLINT(bugprone-random-generator-seed): the same every time
  for (int round = 0; round < 200; ++round) {
    Commands backlog;
    std::vector<Commands::Queue> queues;
    queues.emplace_back(StreamKind::legacy);
    for (int i = 0; i < 3; ++i) queues.emplace_back(StreamKind::blocking);
    for (int i = 0; i < 2; ++i) queues.emplace_back(StreamKind::independent);
    uint64_t sequence = 0;
    for (int i = 0; i < 60; ++i) backlog.push(queues[random() % queues.size()], ++sequence, 0);
    uint64_t last_legacy = 0;
    uint64_t last_blocking = 0;
    while (!backlog.empty()) {
      std::vector<Commands::Queue*> ready;
      for (auto& queue : queues) {
        if (!queue.empty() && backlog.first(queue, queue.head().sequence)) ready.push_back(&queue);
      }
      REQUIRE(!ready.empty());
      Commands::Queue& chosen = *ready[random() % ready.size()];
      const uint64_t number = chosen.head().sequence;
      if (chosen.kind() == StreamKind::legacy) {
        CHECK(number > last_blocking);
        last_legacy = number;
      } else if (chosen.kind() == StreamKind::blocking) {
        CHECK(number > last_legacy);
        last_blocking = std::max(last_blocking, number);
      }
      backlog.pop(chosen);
    }
  }
}

}  // namespace
}  // namespace outboard::worker
