// Device memory: allocation, release, sizes, ranges.
// SPDX-License-Identifier: Apache-2.0
#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/host_memory.hpp"
#include "shim/cuda/pool.hpp"

namespace outboard::shim {
namespace {

constexpr size_t pitch_alignment_bytes = 512;

CUresult allocate(Context* context, CUdeviceptr* out, size_t bytes) {
  client::Answer<wire::command::MemoryAllocate> answer;
  const CUresult result = call(context, wire::command::MemoryAllocate{.bytes = bytes}, &answer);
  if (result != CUDA_SUCCESS) return result;
  Range range;
  range.base = answer.reply.address;
  range.bytes = bytes;
  range.context = context;
  range.device = context->device;
  range.kind = MemoryKind::device;
  addresses().add(range);
  *out = answer.reply.address;
  return CUDA_SUCCESS;
}

}  // namespace

CUresult cuMemAlloc_v2(CUdeviceptr* dptr, size_t bytesize) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (dptr == nullptr || bytesize == 0) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult result = check_unsafe(); result != CUDA_SUCCESS) return result;
  return allocate(context, dptr, bytesize);
}

CUresult cuMemAllocPitch_v2(CUdeviceptr* dptr, size_t* pPitch, size_t WidthInBytes, size_t Height,
                            unsigned int ElementSizeBytes) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (dptr == nullptr || pPitch == nullptr || WidthInBytes == 0 || Height == 0 ||
      (ElementSizeBytes != 4 && ElementSizeBytes != 8 && ElementSizeBytes != 16)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (const CUresult result = check_unsafe(); result != CUDA_SUCCESS) return result;
  const size_t pitch =
      (WidthInBytes + pitch_alignment_bytes - 1) / pitch_alignment_bytes * pitch_alignment_bytes;
  if (pitch < WidthInBytes || Height > SIZE_MAX / pitch) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = allocate(context, dptr, pitch * Height);
  if (result == CUDA_SUCCESS) *pPitch = pitch;
  return result;
}

CUresult cuMemFree_v2(CUdeviceptr dptr) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (dptr == 0) return CUDA_SUCCESS;
  if (const CUresult result = check_unsafe(); result != CUDA_SUCCESS) return result;
  Range range;
  if (addresses().find(dptr, &range) && range.base == dptr) {
    if (range.kind == MemoryKind::graph) return CUDA_SUCCESS;  // it goes with its graph
    if (range.kind == MemoryKind::managed && !range.variable) return free_host(range);
  }
  if (!addresses().remove(dptr, MemoryKind::device, MemoryKind::pool, &range)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (range.pool != nullptr) give_back(range.pool, range.bytes);
  // It was allocated in this context, not in whichever is current.
  client::Answer<wire::command::MemoryFree> answer;
  return call(range.context, wire::command::MemoryFree{.address = dptr}, &answer);
}

CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  client::Answer<wire::command::MemoryGetInfo> answer;
  const CUresult result = call(context, wire::command::MemoryGetInfo{}, &answer);
  if (result != CUDA_SUCCESS) return result;
  if (free != nullptr) *free = answer.reply.free_bytes;
  if (total != nullptr) *total = answer.reply.total_bytes;
  return CUDA_SUCCESS;
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr* pbase, size_t* psize, CUdeviceptr dptr) {
  Context* context = nullptr;
  if (const CUresult result = enter_local(&context); result != CUDA_SUCCESS) return result;
  Range range;
  if (!addresses().find(dptr, &range)) return CUDA_ERROR_NOT_FOUND;
  if (pbase != nullptr) *pbase = range.base;
  if (psize != nullptr) *psize = range.bytes;
  return CUDA_SUCCESS;
}

}  // namespace outboard::shim
