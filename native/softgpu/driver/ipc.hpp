// What this process shares with others: a socket that hands out descriptors to whoever has a token.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>

#include "api.hpp"

namespace softgpu {

enum class SharedKind : uint32_t { memory = 1, event, pool };

/// What a CUipcMemHandle, a CUipcEventHandle or a CUmemPoolPtrExportData holds.
struct SharedHandle {
  std::array<char, 8> magic{'s', 'o', 'f', 't', 'g', 'p', 'u', '!'};
  std::array<uint8_t, 16> process{};  ///< names the socket
  std::array<uint8_t, 16> token{};
  SharedKind kind = SharedKind::memory;
  uint32_t reserved = 0;
  uint64_t pool = 0;  ///< of a pool and its memory: the pool's handle in its process
  uint64_t unused = 0;
};
static_assert(sizeof(SharedHandle) == 64);

/// What goes with a descriptor.
struct SharedPlace {
  uint64_t file_offset = 0;  ///< where the memory lies in the file
  uint64_t bytes = 0;
  int32_t device = 0;
  int32_t fd = -1;
};

/// Gives the place of what a token names, with a descriptor that stays the giver's; nothing once it
/// is gone.
using Shared = std::function<std::optional<SharedPlace>()>;

/// This process's name, for comparing.
const std::array<uint8_t, 16>& own_process();
/// Makes a token. `object` tells one object from all others: the same gets the same token.
CUresult share(SharedKind kind, uint64_t object, Shared what, SharedHandle* handle);
/// Asks the process that made the handle; the descriptor is the caller's.
CUresult obtain(const SharedHandle& handle, SharedPlace* place);
bool is_handle(const SharedHandle& handle, SharedKind kind);

}  // namespace softgpu
