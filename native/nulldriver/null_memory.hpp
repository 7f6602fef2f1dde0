// The null driver's memory: addresses without anything behind them, and real pinned host memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace null_memory {

inline constexpr size_t kTotal = size_t{80} << 30;
/// That compressed memory may be in: Deflate, Snappy, LZ4.
inline constexpr int kAlgorithms = 7;

/// Whether the range is pinned or registered host memory.
bool host(uint64_t address, uint64_t bytes);

}  // namespace null_memory
