// Stream-ordered memory: each device's default pool and what comes from it.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "base/log.hpp"
#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

CUresult default_pool(CUdevice ordinal, CUmemoryPool* out) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Device* device = find_device(ordinal);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  const std::lock_guard guard(device->mutex);
  if (device->pool == nullptr) {
    device->pool = pools.take();
    if (device->pool == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    device->pool->device = device;
  }
  *out = handle(device->pool);
  return CUDA_SUCCESS;
}

CUresult allocate(CUdeviceptr* out, size_t bytes, Device* of_pool, CUstream hStream) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (of_pool != nullptr && of_pool != context->device) return CUDA_ERROR_INVALID_DEVICE;
  if (bytes == 0) {
    *out = 0;
    return CUDA_SUCCESS;
  }
  if (is_captured(stream)) {
    static const char said[] = "captured allocation";
    say_once(said,
             "the program captures an allocation into a graph, which is not supported; it gets "
             "CUDA_ERROR_NOT_SUPPORTED");
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  CUmemoryPool pool = nullptr;
  const CUresult made = default_pool(context->device->ordinal, &pool);
  if (made != CUDA_SUCCESS) return made;
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  client::Answer<wire::command::MemoryAllocateOrdered> answer;
  const CUresult result = call(
      context, wire::command::MemoryAllocateOrdered{.stream = stream->head.id(), .bytes = bytes},
      &answer);
  if (result != CUDA_SUCCESS) return result;
  Range range;
  range.base = answer.reply.address;
  range.bytes = bytes;
  range.context = context;
  range.device = context->device;
  range.kind = MemoryKind::pool;
  addresses().add(range);
  const uint64_t used = context->device->pool->used.fetch_add(bytes) + bytes;
  uint64_t high = context->device->pool->used_high.load();
  while (used > high && !context->device->pool->used_high.compare_exchange_weak(high, used)) {
  }
  *out = answer.reply.address;
  return CUDA_SUCCESS;
}

std::atomic<int>* reuse_switch(Pool* pool, CUmemPool_attribute attribute) {
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
      return &pool->reuse_follow_event;
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
      return &pool->reuse_opportunistic;
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      return &pool->reuse_internal;
    default:
      return nullptr;
  }
}

CUresult find_pool(CUmemoryPool value, const void* out, Pool** pool) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  *pool = find(value);
  return *pool != nullptr && out != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

}  // namespace

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool_out, CUdevice dev) {
  return default_pool(dev, pool_out);
}

CUresult cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice dev) { return default_pool(dev, pool); }

// The default pool is the only one: making it the current one again is all that can be asked.
CUresult cuDeviceSetMemPool(CUdevice dev, CUmemoryPool pool) {
  CUmemoryPool own = nullptr;
  const CUresult result = default_pool(dev, &own);
  if (result != CUDA_SUCCESS) return result;
  return pool == own ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemAllocAsync(CUdeviceptr* dptr, size_t bytesize, CUstream hStream) {
  return allocate(dptr, bytesize, nullptr, hStream);
}

CUresult cuMemAllocFromPoolAsync(CUdeviceptr* dptr, size_t bytesize, CUmemoryPool pool,
                                 CUstream hStream) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  const Pool* of = find(pool);
  if (of == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return allocate(dptr, bytesize, of->device, hStream);
}

CUresult cuMemFreeAsync(CUdeviceptr dptr, CUstream hStream) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  if (dptr == 0) return CUDA_SUCCESS;
  if (is_captured(stream)) return CUDA_ERROR_NOT_SUPPORTED;
  Range range;
  if (!addresses().remove(dptr, MemoryKind::pool, MemoryKind::device, &range)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (range.kind == MemoryKind::pool) range.device->pool->used.fetch_sub(range.bytes);
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  return send(stream,
              wire::command::MemoryFreeOrdered{.stream = stream->head.id(), .address = dptr});
}

CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attr, void* value) {
  Pool* found = nullptr;
  if (const CUresult result = find_pool(pool, value, &found); result != CUDA_SUCCESS) return result;
  if (const std::atomic<int>* flag = reuse_switch(found, attr)) {
    *static_cast<int*>(value) = flag->load();
    return CUDA_SUCCESS;
  }
  cuuint64_t number = 0;
  switch (attr) {
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      number = found->release_threshold.load();
      break;
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
      number = found->used.load();
      break;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      number = found->used_high.load();
      break;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  *static_cast<cuuint64_t*>(value) = number;
  return CUDA_SUCCESS;
}

CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attr, void* value) {
  Pool* found = nullptr;
  if (const CUresult result = find_pool(pool, value, &found); result != CUDA_SUCCESS) return result;
  if (std::atomic<int>* flag = reuse_switch(found, attr)) {
    flag->store(*static_cast<const int*>(value));
    return CUDA_SUCCESS;
  }
  const cuuint64_t number = *static_cast<const cuuint64_t*>(value);
  switch (attr) {
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      found->release_threshold.store(number);
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      if (number != 0) return CUDA_ERROR_INVALID_VALUE;
      found->used_high.store(found->used.load());
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

}  // namespace outboard::shim
