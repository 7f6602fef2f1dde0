// The share page between processes, also when one of them dies while it holds the lock.
// SPDX-License-Identifier: Apache-2.0
#include "worker/share.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace outboard::worker {
namespace {

constexpr uint64_t mib = 1 << 20;

UniqueFd copy(const UniqueFd& fd) { return UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3)); }

// Its own open of the page, as a worker that was handed the descriptor has after exec.
bool open_share(Share& share, const UniqueFd& page, unsigned slot) {
  std::string error;
  return share.open(copy(page), slot, &error);
}

TEST_CASE("a share is not overdrawn, and what is released can be taken again") {
  const uint64_t limits[] = {100 * mib, 10 * mib};
  const UniqueFd page = Share::make(limits, 2);
  Share share;
  REQUIRE(open_share(share, page, 3));
  CHECK(share.limit(0) == 100 * mib);
  CHECK(share.reserve(0, 60 * mib));
  CHECK(!share.reserve(0, 41 * mib));
  CHECK(share.reserve(0, 40 * mib));
  CHECK(!share.reserve(0, 1));
  CHECK(share.reserve(1, 10 * mib));
  share.release(0, 60 * mib);
  CHECK(share.held(0) == 40 * mib);
  CHECK(share.own(0) == 40 * mib);
  CHECK(!share.reserve(0, UINT64_MAX));
  CHECK(!share.reserve(2, 1));
}

TEST_CASE("a page that is none is refused") {
  std::string error;
  Share share;
  UniqueFd empty(::memfd_create("empty", MFD_CLOEXEC));
  CHECK(!share.open(copy(empty), 0, &error));
  REQUIRE(::ftruncate(empty.get(), Share::page_bytes) == 0);
  CHECK(!share.open(copy(empty), 0, &error));
  const uint64_t limit = mib;
  const UniqueFd page = Share::make(&limit, 1);
  CHECK(!share.open(copy(page), Share::max_slots, &error));
}

// Takes and gives back in turn until it is killed.
[[noreturn]] void churn(const UniqueFd& page, unsigned slot) {
  Share share;
  if (!open_share(share, page, slot)) ::_exit(1);
  for (;;) {
    if (share.reserve(0, mib)) share.release(0, mib);
  }
}

TEST_CASE("processes killed at any moment leave neither a lock nor an overdrawn share") {
  const uint64_t limit = 3 * mib;
  const UniqueFd page = Share::make(&limit, 1);
  Share own;
  REQUIRE(open_share(own, page, 0));
  for (int round = 0; round < 20; ++round) {
    pid_t children[2];
    for (unsigned i = 0; i < 2; ++i) {
      children[i] = ::fork();
      REQUIRE(children[i] >= 0);
      if (children[i] == 0) churn(page, 1 + i);
    }
    for (int i = 0; i < 200 * (round + 1) % 1000; ++i) {
      if (own.reserve(0, mib)) own.release(0, mib);
      CHECK(own.held(0) <= limit);
    }
    for (const pid_t child : children) ::kill(child, SIGKILL);
    for (const pid_t child : children) ::waitpid(child, nullptr, 0);
    // The agent zeroes the slots of the dead; until then what they held counts.
    CHECK(own.held(0) <= 2 * mib);
    REQUIRE(own.reserve(0, limit - own.held(0)));
    own.release(0, own.own(0));
    for (unsigned slot = 1; slot <= 2; ++slot) {
      Share dead;
      REQUIRE(open_share(dead, page, slot));
      dead.release(0, dead.own(0));
    }
    CHECK(own.held(0) == 0);
  }
}

}  // namespace
}  // namespace outboard::worker
