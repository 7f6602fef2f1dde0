// What this process is to Outboard: not started, running, or a forked child that may not call.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

namespace outboard::client {

namespace detail {
// Points at a word that is 0 until start(), then at one on a page that the kernel wipes in a child
// of fork, so that a child is "not started" whatever libc it was forked by.
extern std::atomic<const std::atomic<uint32_t>*> running_word;
}  // namespace detail

/// True between a successful start and the end, false in a forked child. Costs two loads.
inline bool running() {
  return detail::running_word.load(std::memory_order_relaxed)->load(std::memory_order_relaxed) != 0;
}

/// True in a child that was forked after its parent had started: nothing may be sent from here.
bool forked_after_start();

/// Marks the process as running and installs the fork handler. False where a page cannot be had.
bool mark_running();

/// Descriptors that a forked child closes at once, so that the server sees the parent's end.
void close_in_child(int fd);
void forget_in_child(int fd);

}  // namespace outboard::client
