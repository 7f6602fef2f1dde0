// The windows of addresses that client and server both reserve, so that a device pointer means the
// same on both. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace outboard::client {

struct Window {
  uint64_t base = 0;
  uint64_t bytes = 0;

  bool contains(uint64_t address) const { return address - base < bytes; }
};

/// Reserves the next free window of this process, without backing. False where none can be had
/// (`ulimit -v`), with the reason in errno.
bool reserve_window(Window* window);

/// Gives a window up that the server could not reserve; the next reserve_window takes a later
/// place.
void release_window(const Window& window);

/// Where the program's own reservations lie, and where pinned memory lies that a device can reach.
enum class Region : uint32_t { reservations, host };

/// Reserves the next free place of a region, a multiple of `alignment` (a power of two). Places are
/// used again only once the region's end is reached, so that a stale address faults. False where
/// nothing can be had.
bool reserve_place(Region region, uint64_t bytes, uint64_t alignment, Window* window);
/// All of a region.
Window region_window(Region region);

/// Reserves exactly [base, base + bytes), for what the server's driver placed itself; false if
/// taken.
bool reserve_exactly(uint64_t base, uint64_t bytes);

}  // namespace outboard::client
