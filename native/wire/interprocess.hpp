// What a handle that programs pass between processes is made of (docs/internals/ipc.md).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

namespace outboard::wire {

using WorkerId = std::array<uint8_t, 16>;
using Token = std::array<uint8_t, 16>;

/// What a token names.
enum class Shared : uint8_t { memory = 1, event = 2, physical = 3, pool = 4, pool_memory = 5 };

struct InterprocessHandle {
  static constexpr std::array<char, 7> magic_text = {'O', 'B', 'S', 'H', 'A', 'R', 'E'};

  std::array<char, 7> magic = magic_text;
  Shared kind = Shared::memory;
  std::array<uint8_t, 16> device{};  ///< UUID
  WorkerId worker{};
  Token token{};
  uint64_t pool = 0;  ///< of pool memory and pools: the pool's number in the exporting process
};
static_assert(sizeof(InterprocessHandle) == 64);

}  // namespace outboard::wire
