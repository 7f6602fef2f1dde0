// Lines for people: whole lines on stderr, each with the prefix `outboard:`, none that does not
// help. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdarg>

namespace outboard {

/// Writes `outboard: TEXT\n` by one write(2), so that lines of several threads and processes do not
/// mix.
[[gnu::format(printf, 1, 2)]] void say(const char* format, ...);

/// As `say`, once per process for each `token` (compared by address).
[[gnu::format(printf, 2, 3)]] void say_once(const char* token, const char* format, ...);

/// True if OUTBOARD_TRACE names this kind of line (comma-separated kinds, or `all`).
bool tracing(const char* kind);

}  // namespace outboard
