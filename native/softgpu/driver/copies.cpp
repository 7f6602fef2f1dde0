// Copies and memsets as programs describe them, turned into operations.
// SPDX-License-Identifier: Apache-2.0
#include "copies.hpp"

#include <algorithm>
#include <limits>

#include "array.hpp"
#include "memory_map.hpp"

namespace softgpu {
namespace {

struct End {
  uint64_t address;
  Place place;
  size_t pitch, slice;
  CopyOperation::TiledEnd tiled{};  ///< instead of an address
  Device* device = nullptr;         ///< of that
};

/// The device whose memory the address lies in; null for host memory.
CUresult resolve(const End& end, size_t width, size_t height, size_t depth, Device** device) {
  *device = end.device;
  if (end.tiled.level) return CUDA_SUCCESS;
  if (end.address == 0) return CUDA_ERROR_INVALID_VALUE;
  auto found = MemoryMap::get().find(end.address);
  if (!found || found->host()) {
    return end.place == Place::device && !found ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
  }
  size_t extent = (depth - 1) * end.slice + (height - 1) * end.pitch + width;
  // Mappings that lie side by side count as one range, as their address space does.
  if (end.address + extent > found->base + found->size && found->kind != MemoryKind::mapped) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (!found->device->space.contains(end.address, extent)) return CUDA_ERROR_INVALID_VALUE;
  *device = found->device;
  return CUDA_SUCCESS;
}

CUresult fill(const End& to, const End& from, size_t width, size_t height, size_t depth,
              CopyOperation* out) {
  if (CUresult r = resolve(to, width, height, depth, &out->destination_device); r != CUDA_SUCCESS) {
    return r;
  }
  if (CUresult r = resolve(from, width, height, depth, &out->source_device); r != CUDA_SUCCESS) {
    return r;
  }
  out->destination = to.address;
  out->source = from.address;
  out->destination_pitch = to.pitch;
  out->source_pitch = from.pitch;
  out->destination_slice = to.slice;
  out->source_slice = from.slice;
  out->width = width;
  out->height = height;
  out->depth = depth;
  out->tiled_destination = to.tiled;
  out->tiled_source = from.tiled;
  if (to.tiled.level || from.tiled.level) return CUDA_SUCCESS;
  // Rows without gaps are one row, planes without gaps one plane.
  if (out->height > 1 && to.pitch == width && from.pitch == width) {
    bool planes = out->depth == 1 || (to.slice == width * height && from.slice == width * height);
    out->width *= out->height;
    out->height = 1;
    if (planes) {
      out->width *= out->depth;
      out->depth = 1;
    }
  }
  return CUDA_SUCCESS;
}

struct Extent {
  size_t width, height, depth;
};

/// A place in an array, which the copy must not leave.
CUresult end_of_array(CUarray handle, size_t x, size_t y, size_t z, Extent extent, End* out) {
  std::shared_ptr<Array> array = arrays().find(handle);
  if (!array) return CUDA_ERROR_INVALID_HANDLE;
  auto leaves = [](size_t from, size_t count, size_t size) {
    return from > size || count > size - from;
  };
  if (leaves(x, extent.width, array->pitch()) || leaves(y, extent.height, array->rows()) ||
      leaves(z, extent.depth, array->slices())) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  out->place = Place::device;
  out->pitch = array->pitch();
  out->slice = array->pitch() * array->rows();
  if (array->tiles) {
    out->tiled = {array->tiles, {x, y, z}};
    out->device = array->device;
    return CUDA_SUCCESS;
  }
  out->address = array->base + z * out->slice + y * out->pitch + x;
  return CUDA_SUCCESS;
}

CUresult end_of(CUmemorytype type, const void* host, CUdeviceptr device, size_t x, size_t y,
                size_t z, size_t pitch, size_t rows, End* out) {
  switch (type) {
    case CU_MEMORYTYPE_HOST:
      out->address = reinterpret_cast<uint64_t>(host);
      out->place = Place::host;
      break;
    case CU_MEMORYTYPE_DEVICE:
      out->address = device;
      out->place = Place::device;
      break;
    case CU_MEMORYTYPE_UNIFIED:
      out->address = device;
      out->place = Place::any;
      break;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  if (out->address == 0) return CUDA_ERROR_INVALID_VALUE;
  out->pitch = pitch;
  if (__builtin_mul_overflow(pitch, rows, &out->slice)) return CUDA_ERROR_INVALID_VALUE;
  out->address += z * out->slice + y * pitch + x;
  return CUDA_SUCCESS;
}

}  // namespace

bool pageable(uint64_t address) { return !MemoryMap::get().find(address); }

CUresult linear_copy(uint64_t destination, Place destination_place, uint64_t source,
                     Place source_place, size_t bytes, CopyOperation* out) {
  if (bytes == 0) {
    *out = CopyOperation{};
    return CUDA_SUCCESS;
  }
  return fill({destination, destination_place, bytes, bytes}, {source, source_place, bytes, bytes},
              bytes, 1, 1, out);
}

CUresult copy_3d(const CUDA_MEMCPY3D& d, CopyOperation* out) {
  *out = CopyOperation{};
  constexpr size_t kLimit = std::numeric_limits<size_t>::max() / 4;
  size_t plane, volume;
  if (__builtin_mul_overflow(d.WidthInBytes, d.Height, &plane) ||
      __builtin_mul_overflow(plane, d.Depth, &volume) || volume > kLimit) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (volume == 0) return CUDA_SUCCESS;
  size_t source_pitch = d.srcPitch ? d.srcPitch : d.WidthInBytes + d.srcXInBytes;
  size_t destination_pitch = d.dstPitch ? d.dstPitch : d.WidthInBytes + d.dstXInBytes;
  size_t source_rows = d.srcHeight ? d.srcHeight : d.Height + d.srcY;
  size_t destination_rows = d.dstHeight ? d.dstHeight : d.Height + d.dstY;
  if ((d.Height > 1 || d.Depth > 1) &&
      (source_pitch < d.WidthInBytes || destination_pitch < d.WidthInBytes)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (d.Depth > 1 && (source_rows < d.Height || destination_rows < d.Height)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  End to{}, from{};
  Extent extent{d.WidthInBytes, d.Height, d.Depth};
  CUresult r = d.srcMemoryType == CU_MEMORYTYPE_ARRAY
                   ? end_of_array(d.srcArray, d.srcXInBytes, d.srcY, d.srcZ, extent, &from)
                   : end_of(d.srcMemoryType, d.srcHost, d.srcDevice, d.srcXInBytes, d.srcY, d.srcZ,
                            source_pitch, source_rows, &from);
  if (r != CUDA_SUCCESS) return r;
  r = d.dstMemoryType == CU_MEMORYTYPE_ARRAY
          ? end_of_array(d.dstArray, d.dstXInBytes, d.dstY, d.dstZ, extent, &to)
          : end_of(d.dstMemoryType, d.dstHost, d.dstDevice, d.dstXInBytes, d.dstY, d.dstZ,
                   destination_pitch, destination_rows, &to);
  if (r != CUDA_SUCCESS) return r;
  return fill(to, from, d.WidthInBytes, d.Height, d.Depth, out);
}

CUDA_MEMCPY3D describe(const CopyOperation& copy) {
  CUDA_MEMCPY3D d{};
  d.srcMemoryType = copy.source_device ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
  d.srcDevice = copy.source_device ? copy.source : 0;
  d.srcHost = copy.source_device ? nullptr : reinterpret_cast<const void*>(copy.source);
  d.srcPitch = copy.source_pitch;
  d.srcHeight = copy.source_pitch ? copy.source_slice / copy.source_pitch : 0;
  d.dstMemoryType = copy.destination_device ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
  d.dstDevice = copy.destination_device ? copy.destination : 0;
  d.dstHost = copy.destination_device ? nullptr : reinterpret_cast<void*>(copy.destination);
  d.dstPitch = copy.destination_pitch;
  d.dstHeight = copy.destination_pitch ? copy.destination_slice / copy.destination_pitch : 0;
  d.WidthInBytes = copy.width;
  d.Height = copy.height;
  d.Depth = copy.depth;
  return d;
}

CUresult memset_operation(uint64_t destination, size_t pitch, uint32_t value,
                          uint32_t element_bytes, size_t width, size_t height,
                          MemsetOperation* out) {
  *out = MemsetOperation{};
  if (element_bytes != 1 && element_bytes != 2 && element_bytes != 4) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (width == 0 || height == 0) return CUDA_SUCCESS;
  size_t row, all;
  if (__builtin_mul_overflow(width, element_bytes, &row) ||
      __builtin_mul_overflow(std::max(pitch, row), height, &all)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (destination % element_bytes != 0 || (height > 1 && pitch < row)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  auto found = MemoryMap::get().find(destination);
  if (!found) return CUDA_ERROR_INVALID_VALUE;
  End end{destination, Place::device, pitch, 0};
  if (CUresult r = resolve(end, row, height, 1, &out->device); r != CUDA_SUCCESS) return r;
  if (found->host() && destination + (height - 1) * pitch + row > found->base + found->size) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  out->destination = destination;
  out->pitch = pitch;
  out->value = value;
  out->element_bytes = element_bytes;
  out->width = width;
  out->height = height;
  if (height > 1 && pitch == row) {
    out->width *= height;
    out->height = 1;
  }
  return CUDA_SUCCESS;
}

}  // namespace softgpu
