// Where the tests' clients have their window.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace outboard::worker {

// ThreadSanitizer takes the usual place for itself and leaves this one; the client does the same.
#ifdef __SANITIZE_THREAD__
inline constexpr uint64_t test_window_base = 0x10'0000'0000;
inline constexpr uint64_t test_window_bytes = uint64_t{64} << 30;
#else
inline constexpr uint64_t test_window_base = 0x2000'0000'0000;
inline constexpr uint64_t test_window_bytes = uint64_t{1} << 40;
#endif

}  // namespace outboard::worker
