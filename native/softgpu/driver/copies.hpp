// Copies as programs describe them, turned into operations.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "context.hpp"
#include "operation.hpp"

namespace softgpu {

/// Where an end of a copy may lie.
enum class Place { host, device, any };

/// A copy of `bytes` bytes; checks that device addresses are mapped.
CUresult linear_copy(uint64_t destination, Place destination_place, uint64_t source,
                     Place source_place, size_t bytes, CopyOperation* out);
CUresult copy_3d(const CUDA_MEMCPY3D& description, CopyOperation* out);
/// The description of an operation, for those who ask about a graph's node.
CUDA_MEMCPY3D describe(const CopyOperation& copy);

CUresult memset_operation(uint64_t destination, size_t pitch, uint32_t value,
                          uint32_t element_bytes, size_t width, size_t height,
                          MemsetOperation* out);

/// True for host memory that is neither pinned nor registered.
bool pageable(uint64_t address);

}  // namespace softgpu
