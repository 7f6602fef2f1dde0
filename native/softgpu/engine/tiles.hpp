// The memory of arrays that is mapped tile by tile, and may be missing.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace softgpu {

constexpr uint64_t kTileBytes = 64 << 10;

/// Where the tiles of an array, of all its levels, lie. Kernels look while streams map.
class TilePlaces {
 public:
  explicit TilePlaces(size_t count) : places_(count), owners_(count) {}
  size_t count() const { return places_.size(); }
  /// 0: the tile has no memory.
  uint64_t at(size_t tile) const { return places_[tile].load(std::memory_order_relaxed); }
  /// `owner` keeps the memory.
  void set(size_t tile, uint64_t address, std::shared_ptr<const void> owner) {
    const std::lock_guard lock(mutex_);
    places_[tile].store(address, std::memory_order_relaxed);
    owners_[tile].swap(owner);
  }

 private:
  std::vector<std::atomic<uint64_t>> places_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<const void>> owners_;
};

/// One level of such an array: tiles of rows and slices, or without an extent of tiles (a mip tail,
/// an array that is mapped as a whole) rows and slices that run through the tiles.
struct TiledLevel {
  std::shared_ptr<const TilePlaces> places;
  size_t first = 0;                 ///< its first tile
  std::array<uint64_t, 3> tile{};   ///< bytes of a row, rows, slices; zeros: running through
  std::array<uint64_t, 2> tiles{};  ///< in a row, and rows of them in a slice
  uint64_t begin = 0;               ///< where it begins in its first tile
  uint64_t row_bytes = 0, slice_bytes = 0;  ///< where it runs through

  /// The address of a byte, 0 where it has no memory; `run`: so many bytes of the row follow it in
  /// the same tile, itself included.
  uint64_t find(uint64_t x_bytes, uint64_t y, uint64_t z, uint64_t* run) const {
    if (tile[0] == 0) {
      const uint64_t at = begin + z * slice_bytes + y * row_bytes + x_bytes;
      *run = kTileBytes - at % kTileBytes;
      return place(first + at / kTileBytes, at % kTileBytes);
    }
    const uint64_t x = x_bytes % tile[0];
    *run = tile[0] - x;
    const uint64_t number = ((z / tile[2]) * tiles[1] + y / tile[1]) * tiles[0] + x_bytes / tile[0];
    return place(first + number, ((z % tile[2]) * tile[1] + y % tile[1]) * tile[0] + x);
  }

 private:
  uint64_t place(size_t number, uint64_t offset) const {
    const uint64_t address = places->at(number);
    return address == 0 ? 0 : address + offset;
  }
};

}  // namespace softgpu
