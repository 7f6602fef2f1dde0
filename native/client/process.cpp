// Telling a forked child from the process that called cuInit.
// SPDX-License-Identifier: Apache-2.0
#include "client/process.hpp"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

namespace outboard::client {
namespace {

constinit std::atomic<uint32_t> never{0};
constinit std::atomic<uint32_t> started{0};
constexpr int max_fds = 256;
constinit std::atomic<int> fds[max_fds] = {};  // descriptor + 1; 0: free

void in_child() {
  // Plain close: nothing is said to the server, whose connection belongs to the parent.
  for (auto& slot : fds) {
    const int fd = slot.exchange(0, std::memory_order_relaxed);
    if (fd != 0) ::close(fd - 1);
  }
}

}  // namespace

namespace detail {
constinit std::atomic<const std::atomic<uint32_t>*> running_word{&never};
}  // namespace detail

bool forked_after_start() { return started.load(std::memory_order_relaxed) != 0 && !running(); }

bool mark_running() {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  void* memory = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  if (::madvise(memory, page, MADV_WIPEONFORK) != 0) {
    ::munmap(memory, page);
    return false;
  }
  auto* word = new (memory) std::atomic<uint32_t>(1);
  ::pthread_atfork(nullptr, nullptr, in_child);
  started.store(1, std::memory_order_relaxed);
  detail::running_word.store(word, std::memory_order_release);
  return true;
}

void close_in_child(int fd) {
  for (auto& slot : fds) {
    int expected = 0;
    if (slot.compare_exchange_strong(expected, fd + 1)) return;
  }
}

void forget_in_child(int fd) {
  for (auto& slot : fds) {
    int expected = fd + 1;
    if (slot.compare_exchange_strong(expected, 0)) return;
  }
}

}  // namespace outboard::client
