// Copies in up to three dimensions, whatever their ends are.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>

#include "shim/cuda/transfer.hpp"

namespace outboard::shim {

struct Array;
struct Stream;

/// One end of a copy: an array, or memory.
struct VolumeEnd {
  const Array* array = nullptr;      ///< null: memory
  uint64_t address = 0;              ///< of memory: the first byte that is copied
  bool on_device = false;            ///< of memory
  size_t pitch = 0;                  ///< of memory: bytes from row to row
  size_t rows = 0;                   ///< of memory: rows from slice to slice
  size_t x_bytes = 0, y = 0, z = 0;  ///< in an array

  bool on_server() const { return array != nullptr || on_device; }
};

struct VolumeShape {
  size_t width_bytes = 0;
  size_t height = 1;
  size_t depth = 1;

  size_t bytes() const { return width_bytes * height * depth; }
};

/// The shape has no more than SIZE_MAX / 4 bytes, and the ends hold it. The stream is checked
/// already.
CUresult copy_volume(Stream* stream, const VolumeEnd& to, const VolumeEnd& from,
                     const VolumeShape& shape, When when);

/// The command alone, between ends that are both on the server and have been checked.
CUresult send_volume(Stream* stream, const VolumeEnd& to, const VolumeEnd& from,
                     const VolumeShape& shape);

}  // namespace outboard::shim
