// Arrays and mipmapped arrays, and the texture and surface objects that kernels read them through.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <memory>
#include <set>
#include <utility>

#include "worker/sparse_arrays.hpp"

namespace outboard::worker {

struct Context;
struct Module;
class Worker;

/// An array of the program's, or a part of another: a plane, a level.
struct Array {
  CUarray handle = nullptr;
  std::shared_ptr<Context> context;
  uint64_t bytes = 0;  ///< counted against the share; 0: the whole of which it is a part is
  const void* parent = nullptr;  ///< the array or mipmapped array that it is a part of
  bool freed = false;            ///< its end came; it goes when its context's work is done
  std::unique_ptr<Tiles> tiles;  ///< where the program maps its memory
};

struct MipmappedArray {
  CUmipmappedArray handle = nullptr;
  std::shared_ptr<Context> context;
  uint64_t bytes = 0;
  bool freed = false;
  std::unique_ptr<Tiles> tiles;
};

/// A texture or surface reference, of a module or of none.
struct TextureReference {
  std::shared_ptr<Context> context;
  const Module* module = nullptr;
  CUtexref texture = nullptr;  ///< one of the two
  CUsurfref surface = nullptr;
};

/// Objects are the driver's numbers, which contexts may have in common.
using ContextObjects = std::set<std::pair<const Context*, uint64_t>>;

/// The context ends: its arrays, textures and surfaces went with it.
void end_arrays(Worker& worker, const Context& context);

}  // namespace outboard::worker
