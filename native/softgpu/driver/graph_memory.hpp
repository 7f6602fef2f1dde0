// Memory that graphs allocate.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "graph.hpp"
#include "memory_pool.hpp"
#include "stream.hpp"

namespace softgpu {

/// Allocates for a graph: the address is the graph's as long as it or an executable of it lives.
CUresult graph_allocation(MemoryPool& pool, size_t bytes, AllocContent* out);

/// cuMemAllocAsync in a capture: a node, whose memory is there from now on.
CUresult capture_allocation(Stream& stream, MemoryPool& pool, size_t bytes, CUdeviceptr* out);

}  // namespace softgpu
