// What kernels print, kept until the program synchronises.
// SPDX-License-Identifier: Apache-2.0
#include "printf_text.hpp"

#include <atomic>
#include <cstdio>
#include <mutex>
#include <string>

namespace softgpu {
namespace {

struct Kept {
  std::mutex mutex;
  std::string text;
  std::atomic<bool> any{false};
};

Kept& kept() {
  static Kept& value = *new Kept;
  return value;
}

}  // namespace

void PrintfText::append(std::string_view text) {
  std::lock_guard lock(kept().mutex);
  kept().text.append(text);
  kept().any.store(true, std::memory_order_release);
}

void PrintfText::flush() {
  if (!kept().any.load(std::memory_order_acquire)) return;
  // The lock is held while writing, so that two threads that synchronise do not swap their texts.
  std::lock_guard lock(kept().mutex);
  std::fwrite(kept().text.data(), 1, kept().text.size(), stdout);
  kept().text.clear();
  kept().any.store(false, std::memory_order_release);
}

}  // namespace softgpu
