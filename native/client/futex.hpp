// Waiting on a 32-bit word, and a short spin lock for what is held some tens of nanoseconds.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>

namespace outboard::client {

inline void pause_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Sleeps while `word` holds `expected`; may return early, so callers look again.
inline void futex_wait(std::atomic<uint32_t>* word, uint32_t expected,
                       const timespec* limit = nullptr) {
  ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAIT_PRIVATE, expected, limit,
            nullptr, 0);
}
inline void futex_wake(std::atomic<uint32_t>* word, int count = INT_MAX) {
  ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAKE_PRIVATE, count, nullptr,
            nullptr, 0);
}

inline uint64_t now_ns() {
  timespec time;
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(time.tv_nsec);
}

/// Spins some hundred times, then yields: its holders do no system call, but one may be preempted.
/// Unlocking is a full barrier, so that what was written under it is seen by who says it will
/// sleep.
class SpinLock {
 public:
  void lock() {
    for (int round = 0; flag_.exchange(1, std::memory_order_acquire) != 0;) {
      while (flag_.load(std::memory_order_relaxed) != 0) {
        if (++round < 200) {
          pause_cpu();
        } else {
          ::sched_yield();
        }
      }
    }
  }
  void unlock() { flag_.store(0, std::memory_order_seq_cst); }

 private:
  std::atomic<uint32_t> flag_{0};
};

/// A one-shot or repeated signal: waiters sleep until the value moves on.
class Signal {
 public:
  uint32_t value() const { return value_.load(std::memory_order_acquire); }
  void raise() {
    value_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) != 0) futex_wake(&value_);
  }
  /// Returns when the value is no longer `seen`.
  void wait_past(uint32_t seen) {
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    while (value() == seen) futex_wait(&value_, seen);
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
  }

 private:
  std::atomic<uint32_t> value_{0};
  std::atomic<uint32_t> sleepers_{0};
};

}  // namespace outboard::client
