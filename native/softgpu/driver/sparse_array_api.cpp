// Entry points of arrays whose memory the program maps.
// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "array.hpp"
#include "guard.hpp"
#include "physical_memory.hpp"
#include "submit.hpp"

using namespace softgpu;

namespace {

/// One operation of cuMemMapArrayAsync, checked.
struct TileOperation {
  std::shared_ptr<TilePlaces> places;
  std::vector<size_t> tiles;
  uint64_t address = 0;  ///< of the first tile's memory; 0: they lose it
  std::shared_ptr<PhysicalMemory> memory;
};

CUresult tiling_of(const CUarrayMapInfo& info, std::shared_ptr<const Tiling>* out) {
  if (info.resourceType == CU_RESOURCE_TYPE_ARRAY) {
    const auto array = arrays().find(info.resource.array);
    if (!array) return CUDA_ERROR_INVALID_HANDLE;
    *out = array->tiling;
  } else if (info.resourceType == CU_RESOURCE_TYPE_MIPMAPPED_ARRAY) {
    const auto mipmap = mipmapped_arrays().find(info.resource.mipmap);
    if (!mipmap) return CUDA_ERROR_INVALID_HANDLE;
    *out = mipmap->tiling;
  }
  return *out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult find_memory(const Device& device, const CUarrayMapInfo& info, TileOperation* out) {
  out->memory = physical_memories().find(info.memHandle.memHandle);
  if (!out->memory || out->memory->device != &device ||
      (out->memory->properties.allocFlags.usage & CU_MEM_CREATE_USAGE_TILE_POOL) == 0 ||
      info.offset % kTileBytes != 0 || info.offset > out->memory->bytes ||
      out->tiles.size() * kTileBytes > out->memory->bytes - info.offset) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const uint64_t begin = out->memory->address();
  out->address = begin + info.offset;
  return begin != 0 ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult read(const Device& device, const CUarrayMapInfo& info, TileOperation* out) {
  std::shared_ptr<const Tiling> tiling;
  if (CUresult r = tiling_of(info, &tiling); r != CUDA_SUCCESS) return r;
  if (info.memHandleType != CU_MEM_HANDLE_TYPE_GENERIC || info.flags != 0 ||
      info.deviceBitMask != 1U << device.ordinal) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (CUresult r = tiling->tiles_of(info, &out->tiles); r != CUDA_SUCCESS) return r;
  out->places = tiling->places();
  switch (info.memOperationType) {
    case CU_MEM_OPERATION_TYPE_MAP:
      return find_memory(device, info, out);
    case CU_MEM_OPERATION_TYPE_UNMAP:
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

void carry_out(const TileOperation& operation) {
  uint64_t address = operation.address;
  for (const size_t tile : operation.tiles) {
    operation.places->set(tile, address, operation.memory);
    if (address != 0) address += kTileBytes;
  }
}

CUresult tell(const std::shared_ptr<const Tiling>& tiling, CUDA_ARRAY_SPARSE_PROPERTIES* out) {
  if (out == nullptr || !tiling || tiling->deferred()) return CUDA_ERROR_INVALID_VALUE;
  *out = tiling->properties();
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" CUresult cuArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES* out, CUarray handle) {
  return with_context([&](Context&) {
    const auto array = arrays().find(handle);
    return tell(array ? array->tiling : nullptr, out);
  });
}

extern "C" CUresult cuMipmappedArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES* out,
                                                        CUmipmappedArray handle) {
  return with_context([&](Context&) {
    const auto mipmap = mipmapped_arrays().find(handle);
    return tell(mipmap ? mipmap->tiling : nullptr, out);
  });
}

extern "C" CUresult cuMemMapArrayAsync(CUarrayMapInfo* infos, unsigned count, CUstream stream) {
  return with_context([&](Context& context) {
    std::shared_ptr<Stream> found;
    if (CUresult r = stream_of(context, stream, &found); r != CUDA_SUCCESS) return r;
    // A capture refuses whatever is asked for.
    if (found->capturing.load()) return submit(context, stream, TaskOperation{});
    if (infos == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
    std::vector<TileOperation> operations(count);
    for (unsigned i = 0; i < count; ++i) {
      CUresult r = read(context.device, infos[i], &operations[i]);
      if (r != CUDA_SUCCESS) return r;
    }
    return submit(context, stream, TaskOperation{[operations = std::move(operations)] {
                    for (const TileOperation& operation : operations) carry_out(operation);
                  }});
  });
}
