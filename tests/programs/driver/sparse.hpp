// What programs with arrays whose memory they map themselves share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "arrays.hpp"

constexpr size_t kTileBytes = 64 << 10;

inline CUDA_ARRAY3D_DESCRIPTOR described(size_t width, size_t height, size_t depth,
                                         CUarray_format format, unsigned channels, unsigned flags) {
  return {width, height, depth, format, channels, flags};
}

/// Memory for tiles.
inline CUmemGenericAllocationHandle tile_pool(CUdevice device, size_t size_bytes) {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, device};
  properties.allocFlags.usage = CU_MEM_CREATE_USAGE_TILE_POOL;
  CUmemGenericAllocationHandle handle = 0;
  CHECK(cuMemCreate(&handle, size_bytes, &properties, 0));
  return handle;
}

/// A box of elements of a level, to get memory; with a handle of 0 to lose it.
inline CUarrayMapInfo box(CUarray array, const unsigned (&at)[3], const unsigned (&extent)[3],
                          CUmemGenericAllocationHandle memory, size_t offset) {
  CUarrayMapInfo info{};
  info.resourceType = CU_RESOURCE_TYPE_ARRAY;
  info.resource.array = array;
  info.subresourceType = CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_SPARSE_LEVEL;
  info.subresource.sparseLevel = {0, 0, at[0], at[1], at[2], extent[0], extent[1], extent[2]};
  info.memOperationType = memory != 0 ? CU_MEM_OPERATION_TYPE_MAP : CU_MEM_OPERATION_TYPE_UNMAP;
  info.memHandleType = CU_MEM_HANDLE_TYPE_GENERIC;
  info.memHandle.memHandle = memory;
  info.offset = offset;
  info.deviceBitMask = 1;
  return info;
}

inline std::vector<float> counted(size_t count, float first) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = first + static_cast<float>(i % 65536);
  return values;
}
