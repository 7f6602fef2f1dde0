// Link, dispatch and execution in process: LLVMFuzzerTestOneInput is libFuzzer's entry. The driver
// is OUTBOARD_TEST_NULLDRIVER's where main() did not set one.
// SPDX-License-Identifier: Apache-2.0
#include "fuzz/worker/decoder.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "worker/loop.hpp"
#include "worker/startup.hpp"

namespace outboard::fuzz {
namespace {

constexpr auto longest = std::chrono::seconds(5);
constexpr uint64_t share_bytes = uint64_t{64} << 20;

const worker::Driver* driver_in_use = nullptr;

// Sends the bytes, reads whatever comes back, ends when both are done.
void play(int fd, std::span<const std::byte> bytes, const std::atomic<bool>& done) {
  const auto until = std::chrono::steady_clock::now() + longest;
  std::vector<char> ignored(64 << 10);
  size_t sent = 0;
  bool open = true;
  while (open || !done.load()) {
    if (std::chrono::steady_clock::now() > until) {
      std::fprintf(stderr, "the worker did not end within 5 s\n");
      std::abort();
    }
    pollfd one{fd, static_cast<short>(POLLIN | (sent < bytes.size() ? POLLOUT : 0)), 0};
    ::poll(&one, open ? 1 : 0, open ? 100 : 1);
    if ((one.revents & POLLOUT) != 0) {
      const ssize_t count =
          ::send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (count > 0) sent += static_cast<size_t>(count);
      if (sent == bytes.size()) ::shutdown(fd, SHUT_WR);
    }
    if ((one.revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
      open = ::recv(fd, ignored.data(), ignored.size(), MSG_DONTWAIT) > 0;
    }
  }
}

}  // namespace

void use_driver(const worker::Driver& driver) { driver_in_use = &driver; }

int feed(std::span<const std::byte> bytes) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) std::abort();
  UniqueFd ours(pair[0]);
  std::vector<worker::Device> devices;
  worker::Share share;
  std::string error;
  if (!worker::claim_devices(*driver_in_use, {{0, share_bytes}}, {}, &devices, &error) ||
      !share.open(worker::Share::make(&share_bytes, 1), 0, &error)) {
    std::fprintf(stderr, "%s\n", error.c_str());
    std::abort();
  }
  std::atomic<bool> done{false};
  if (bytes.empty()) ::shutdown(ours.get(), SHUT_WR);
  std::thread client([&] { play(ours.get(), bytes, done); });
  int code = 0;
  {
    worker::Loop loop(*driver_in_use, std::move(devices), share, UniqueFd(pair[1]), nullptr,
                      {std::string(32, 'f'), "fuzz", nullptr});
    code = loop.run();
  }
  done.store(true);
  client.join();
  return code;
}

}  // namespace outboard::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  using namespace outboard;
  if (!fuzz::driver_in_use) {
    const char* path = std::getenv("OUTBOARD_TEST_NULLDRIVER");
    std::string error;
    auto driver = worker::open_driver(path ? path : "", &error);
    if (!driver || driver->cuInit(0) != CUDA_SUCCESS) {
      std::fprintf(stderr, "OUTBOARD_TEST_NULLDRIVER: %s\n", error.c_str());
      std::abort();
    }
    fuzz::use_driver(*driver.release());
  }
  const int code = fuzz::feed(std::as_bytes(std::span(data, bytes)));
  if (code < 0 || code > 2) std::abort();
  return 0;
}
