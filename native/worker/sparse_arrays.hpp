// Arrays whose memory the program maps: which tile has which memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <memory>
#include <span>
#include <vector>

#include "wire/tiles.hpp"

namespace outboard::worker {

struct Array;
struct MipmappedArray;
struct PhysicalMemory;
class Driver;

/// The tiles of an array. Memory counts against the share for as long as a tile has it.
struct Tiles {
  CUDA_ARRAY_SPARSE_PROPERTIES properties{};
  wire::TileGrid grid;
  std::vector<std::shared_ptr<PhysicalMemory>> memory;  ///< by tile
};

/// Asks the driver how a new array is divided, where the program maps its memory; ends it again
/// where the driver does not say.
CUresult divide(const Driver& driver, CUdevice device, const CUDA_ARRAY3D_DESCRIPTOR& descriptor,
                Array* array);
CUresult divide(const Driver& driver, CUdevice device, const CUDA_ARRAY3D_DESCRIPTOR& descriptor,
                unsigned levels, MipmappedArray* mipmap);

/// The mappings of an ArrayMap; empty where the bytes are none.
std::vector<wire::TileMapping> read_mappings(std::span<const std::byte> bytes);

}  // namespace outboard::worker
