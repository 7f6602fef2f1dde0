// Arrays whose memory the program maps: what the driver would refuse is refused here, the rest is
// ordered on its stream.
// SPDX-License-Identifier: Apache-2.0
#include <span>
#include <vector>

#include "generated/shim_api.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/virtual_memory.hpp"
#include "wire/tiles.hpp"

namespace outboard::shim {
namespace {

// What an operation is about.
struct Subject {
  const Context* context = nullptr;
  const wire::TileGrid* tiles = nullptr;
};

CUresult find_subject(const CUarrayMapInfo& info, Subject* subject, wire::TileMapping* mapping) {
  if (info.resourceType == CU_RESOURCE_TYPE_ARRAY) {
    const Array* array = find(info.resource.array);
    if (array == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    mapping->array = array->head.id();
    *subject = {array->context, &array->tiles};
  } else if (info.resourceType == CU_RESOURCE_TYPE_MIPMAPPED_ARRAY) {
    const MipmappedArray* mipmap = find(info.resource.mipmap);
    if (mipmap == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    mapping->mipmap = mipmap->head.id();
    *subject = {mipmap->context, &mipmap->tiles};
  }
  const bool mapped = subject->tiles != nullptr && subject->tiles->count() != 0;
  return mapped ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult read_place(const CUarrayMapInfo& info, wire::TileMapping* mapping) {
  const auto& level = info.subresource.sparseLevel;
  const auto& tail = info.subresource.miptail;
  switch (info.subresourceType) {
    case CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_SPARSE_LEVEL:
      mapping->at = {level.offsetX, level.offsetY, level.offsetZ};
      mapping->extent = {level.extentWidth, level.extentHeight, level.extentDepth};
      mapping->level = level.level;
      mapping->layer = level.layer;
      return CUDA_SUCCESS;
    case CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_MIPTAIL:
      mapping->tail_offset = tail.offset;
      mapping->tail_size = tail.size;
      mapping->layer = tail.layer;
      return tail.size != 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult read_memory(const CUarrayMapInfo& info, const Device* device, uint64_t bytes,
                     wire::TileMapping* mapping) {
  const TileMemory memory = find_tile_memory(info.memHandle.memHandle);
  if (memory.id == 0 || memory.device != device || info.offset % wire::tile_bytes != 0 ||
      info.offset > memory.bytes || bytes > memory.bytes - info.offset) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  mapping->memory = memory.id;
  mapping->offset = info.offset;
  return CUDA_SUCCESS;
}

CUresult read(const CUarrayMapInfo& info, const Device* device, wire::TileMapping* mapping) {
  Subject subject;
  if (const CUresult result = find_subject(info, &subject, mapping); result != CUDA_SUCCESS) {
    return result;
  }
  if (info.memHandleType != CU_MEM_HANDLE_TYPE_GENERIC || info.flags != 0 ||
      info.deviceBitMask != 1U << device->ordinal || subject.context->device != device) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (!subject.tiles->deferred()) {
    if (const CUresult result = read_place(info, mapping); result != CUDA_SUCCESS) return result;
  }
  const size_t tiles = subject.tiles->tiles_of(*mapping).size();
  if (tiles == 0) return CUDA_ERROR_INVALID_VALUE;
  switch (info.memOperationType) {
    case CU_MEM_OPERATION_TYPE_MAP:
      return read_memory(info, device, subject.tiles->bytes(tiles), mapping);
    case CU_MEM_OPERATION_TYPE_UNMAP:
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult tell(const wire::TileGrid* tiles, const CUDA_ARRAY_SPARSE_PROPERTIES* known,
              CUDA_ARRAY_SPARSE_PROPERTIES* out) {
  if (out == nullptr || tiles == nullptr || tiles->count() == 0 || tiles->deferred()) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *out = *known;
  return CUDA_SUCCESS;
}

}  // namespace

CUresult cuArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES* sparseProperties, CUarray value) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  const Array* array = find(value);
  if (array == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return tell(&array->tiles, &array->properties, sparseProperties);
}

CUresult cuMipmappedArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES* sparseProperties,
                                             CUmipmappedArray value) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  const MipmappedArray* mipmap = find(value);
  if (mipmap == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return tell(&mipmap->tiles, &mipmap->properties, sparseProperties);
}

CUresult cuMemMapArrayAsync(CUarrayMapInfo* mapInfoList, unsigned int count, CUstream hStream) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS) {
    return result;
  }
  if (const CUresult result = check_stream_unsafe(stream); result != CUDA_SUCCESS) return result;
  if (mapInfoList == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
  std::vector<wire::TileMapping> mappings(count);
  for (unsigned i = 0; i < count; ++i) {
    const CUresult result = read(mapInfoList[i], context->device, &mappings[i]);
    if (result != CUDA_SUCCESS) return result;
  }
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  return send_in_parts<wire::TileMapping>(
      stream, mappings, wire::most_tile_mappings, [&](std::span<const std::byte> part) {
        return wire::command::ArrayMap{.stream = stream->head.id(), .mappings = part};
      });
}

}  // namespace outboard::shim
