// Lines for people on stderr.
// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace outboard {
namespace {

void say_list(const char* format, va_list list) {
  char line[1024] = "outboard: ";
  constexpr size_t prefix = 10;
  // One byte is kept for the newline: vsnprintf's terminator takes its place when a line is cut.
  const int wanted = std::vsnprintf(line + prefix, sizeof line - prefix, format, list);
  if (wanted < 0) return;
  size_t length = prefix + std::min<size_t>(static_cast<size_t>(wanted), sizeof line - prefix - 1);
  line[length++] = '\n';
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line, length);
}

}  // namespace

void say(const char* format, ...) {
  va_list list;
  va_start(list, format);
  say_list(format, list);
  va_end(list);
}

void say_once(const char* token, const char* format, ...) {
  static std::atomic<const char*> said[256];
  for (auto& slot : said) {
    const char* expected = nullptr;
    if (slot.compare_exchange_strong(expected, token)) break;
    if (expected == token) return;
  }
  va_list list;
  va_start(list, format);
  say_list(format, list);
  va_end(list);
}

bool tracing(const char* kind) {
  const char* text = ::secure_getenv("OUTBOARD_TRACE");
  if (text == nullptr) return false;
  std::string_view rest(text);
  while (!rest.empty()) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view word = rest.substr(0, comma);
    if (word == kind || word == "all") return true;
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return false;
}

}  // namespace outboard
