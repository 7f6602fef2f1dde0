// Stream-ordered memory: pools, and what comes from them.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/pool.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <mutex>

#include "base/log.hpp"
#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/ipc.hpp"

namespace outboard::shim {
namespace {

// Its last memory is free, or it had none. Two threads may come here for one pool, whose slot may
// be another's when the second comes.
void retire(Pool* pool) {
  const std::lock_guard guard(pool->device->mutex);
  if (pools.find(pool) == pool && pool->destroyed.load()) pools.give(pool);
}

// With the device's mutex held.
Pool* default_pool_of(Device* device) {
  if (device->pool == nullptr) {
    device->pool = pools.take();
    if (device->pool != nullptr) {
      device->pool->device = device;
      device->pool->is_default = true;
    }
  }
  return device->pool;
}

enum class Which { by_default, current };

CUresult pool_of(CUdevice ordinal, Which which, CUmemoryPool* out) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Device* device = find_device(ordinal);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  const std::lock_guard guard(device->mutex);
  Pool* pool = which == Which::current ? device->current_pool : nullptr;
  if (pool == nullptr) pool = default_pool_of(device);
  if (pool == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  *out = handle(pool);
  return CUDA_SUCCESS;
}

// The device that a location names; other places have no pools.
CUresult device_at(const CUmemLocation* location, CUmemAllocationType type, CUdevice* ordinal) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (location == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (location->type != CU_MEM_LOCATION_TYPE_DEVICE || type != CU_MEM_ALLOCATION_TYPE_PINNED) {
    static const char said[] = "pool location";
    say_once(said,
             "the program asks for a memory pool that is not of a device, which is not supported; "
             "it gets CUDA_ERROR_NOT_SUPPORTED");
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  *ordinal = location->id;
  return CUDA_SUCCESS;
}

// Counts bytes that are taken from a pool; false where it may not hold so many.
bool take(Pool* pool, uint64_t bytes) {
  uint64_t used = pool->used.load();
  do {
    if (pool->max_bytes != 0 && bytes > pool->max_bytes - std::min(used, pool->max_bytes)) {
      return false;
    }
  } while (!pool->used.compare_exchange_weak(used, used + bytes));
  uint64_t high = pool->used_high.load();
  while (used + bytes > high && !pool->used_high.compare_exchange_weak(high, used + bytes)) {
  }
  return true;
}

// With the device's mutex held. All memory of the device is open while one of its pools is.
CUresult set_viewer(Pool* pool, const Device& viewer, bool open) {
  client::Answer<wire::command::DeviceSetViewer> answer;
  const wire::command::DeviceSetViewer command{
      .device = pool->device->index, .viewer = viewer.index, .open = open};
  pool->device->server->connection().call(command, 0, &answer);
  if (answer.result != CUDA_SUCCESS) return to_cuda(answer.result);
  if (open) pool->viewers.insert(viewer.ordinal);
  if (!open) pool->viewers.erase(viewer.ordinal);
  return CUDA_SUCCESS;
}

CUresult allocate_now(Stream* stream, Pool* pool, size_t bytes, CUdeviceptr* out) {
  client::Answer<wire::command::MemoryAllocateOrdered> answer;
  const wire::command::MemoryAllocateOrdered command{
      .stream = stream->head.id(), .device = pool->device->index, .bytes = bytes};
  const CUresult result = call(stream->context, command, &answer);
  if (result != CUDA_SUCCESS) return result;
  Range range;
  range.base = answer.reply.address;
  range.bytes = bytes;
  range.context = stream->context;
  range.device = pool->device;
  range.pool = pool;
  range.kind = MemoryKind::pool;
  range.flags = pool->shareable ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR : 0;
  addresses().add(range);
  *out = answer.reply.address;
  return CUDA_SUCCESS;
}

CUresult capture_allocation(Stream* stream, Device* device, size_t bytes, CUdeviceptr* out) {
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  Graph* graph = captured_graph(stream);
  if (graph == nullptr) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  client::Answer<wire::command::CaptureAllocation> answer;
  const CUresult result =
      call(stream->context,
           wire::command::CaptureAllocation{
               .stream = stream->head.id(), .device = device->index, .bytes = bytes},
           &answer, stream);
  if (result != CUDA_SUCCESS) return result;
  keep_memory(graph, device, answer.reply.address, bytes);
  *out = answer.reply.address;
  return CUDA_SUCCESS;
}

CUresult allocate(CUdeviceptr* out, size_t bytes, CUmemoryPool from, CUstream hStream) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (from == nullptr) {
    const CUresult found = pool_of(context->device->ordinal, Which::current, &from);
    if (found != CUDA_SUCCESS) return found;
  }
  Pool* pool = find(from);
  if (pool == nullptr || pool->origin) return CUDA_ERROR_INVALID_VALUE;
  // The pool may be another device's, of the same server.
  if (pool->device->server != context->server) return CUDA_ERROR_INVALID_DEVICE;
  if (bytes == 0) {
    *out = 0;
    return CUDA_SUCCESS;
  }
  if (is_captured(stream)) return capture_allocation(stream, pool->device, bytes, out);
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  if (!take(pool, bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  CUresult result = allocate_now(stream, pool, bytes, out);
  if (result == CUDA_ERROR_OUT_OF_MEMORY && captures_active.load() == 0) {
    // What was freed in a stream's order may still wait for its turn.
    result = shim::cuCtxSynchronize_v2(handle(context));
    if (result == CUDA_SUCCESS) result = allocate_now(stream, pool, bytes, out);
  }
  if (result != CUDA_SUCCESS) give_back(pool, bytes);
  return result;
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

void give_back(Pool* pool, uint64_t bytes) {
  const bool last = pool->used.fetch_sub(bytes) == bytes;
  if (last && pool->destroyed.load()) retire(pool);
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool_out, CUdevice dev) {
  return pool_of(dev, Which::by_default, pool_out);
}

CUresult cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice dev) {
  return pool_of(dev, Which::current, pool);
}

CUresult cuDeviceSetMemPool(CUdevice dev, CUmemoryPool pool) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Device* device = find_device(dev);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  Pool* found = find(pool);
  if (found == nullptr || found->device != device || found->origin) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const std::lock_guard guard(device->mutex);
  device->current_pool = found;
  return CUDA_SUCCESS;
}

CUresult cuMemGetDefaultMemPool(CUmemoryPool* pool_out, CUmemLocation* location,
                                CUmemAllocationType type) {
  CUdevice device = 0;
  const CUresult result = device_at(location, type, &device);
  return result == CUDA_SUCCESS ? pool_of(device, Which::by_default, pool_out) : result;
}

CUresult cuMemGetMemPool(CUmemoryPool* pool, CUmemLocation* location, CUmemAllocationType type) {
  CUdevice device = 0;
  const CUresult result = device_at(location, type, &device);
  return result == CUDA_SUCCESS ? pool_of(device, Which::current, pool) : result;
}

CUresult cuMemSetMemPool(CUmemLocation* location, CUmemAllocationType type, CUmemoryPool pool) {
  CUdevice device = 0;
  const CUresult result = device_at(location, type, &device);
  return result == CUDA_SUCCESS ? shim::cuDeviceSetMemPool(device, pool) : result;
}

CUresult cuMemPoolCreate(CUmemoryPool* pool_out, const CUmemPoolProps* poolProps) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (pool_out == nullptr || poolProps == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUdevice ordinal = 0;
  const CUresult result = device_at(&poolProps->location, poolProps->allocType, &ordinal);
  if (result != CUDA_SUCCESS) return result;
  constexpr unsigned known = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  if ((poolProps->handleTypes & ~known) != 0) return CUDA_ERROR_NOT_SUPPORTED;
  Device* device = find_device(ordinal);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  Pool* pool = pools.take();
  if (pool == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  pool->device = device;
  pool->max_bytes = poolProps->maxSize;
  pool->shareable = poolProps->handleTypes != CU_MEM_HANDLE_TYPE_NONE;
  *pool_out = handle(pool);
  return CUDA_SUCCESS;
}

CUresult cuMemPoolExportToShareableHandle(void* handle_out, CUmemoryPool pool,
                                          CUmemAllocationHandleType handleType,
                                          unsigned long long flags) {
  Pool* found = nullptr;
  const CUresult result = find_pool(pool, handle_out, &found);
  if (result != CUDA_SUCCESS) return result;
  if (flags != 0 || !found->shareable) return CUDA_ERROR_INVALID_VALUE;
  if (handleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
  wire::InterprocessHandle handle =
      make_handle(wire::Shared::pool, found->device, own_name(found->device));
  handle.pool = found->head.id();
  return export_descriptor(handle, handle_out);
}

// The pool itself is nothing that a server knows: only what is allocated from it is shared.
CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool* pool_out, void* handle,
                                            CUmemAllocationHandleType handleType,
                                            unsigned long long flags) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (pool_out == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (handleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
  wire::InterprocessHandle shared;
  Device* device = nullptr;
  CUresult result = import_descriptor(handle, wire::Shared::pool, &shared);
  if (result == CUDA_SUCCESS) result = device_of(shared, &device);
  if (result != CUDA_SUCCESS) return result;
  Pool* pool = pools.take();
  if (pool == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  pool->device = device;
  pool->origin = shared;
  *pool_out = shim::handle(pool);
  return CUDA_SUCCESS;
}

CUresult cuMemPoolExportPointer(CUmemPoolPtrExportData* shareData_out, CUdeviceptr ptr) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Range range;
  if (shareData_out == nullptr || !addresses().find(ptr, &range) || range.base != ptr ||
      range.kind != MemoryKind::pool || !range.pool->shareable) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  SharedName name;
  const CUresult result = export_memory(range, &name);
  if (result != CUDA_SUCCESS) return result;
  wire::InterprocessHandle handle = make_handle(wire::Shared::pool_memory, range.device, name);
  handle.pool = range.pool->head.id();
  std::memcpy(shareData_out, &handle, sizeof handle);
  return CUDA_SUCCESS;
}

CUresult cuMemPoolImportPointer(CUdeviceptr* ptr_out, CUmemoryPool pool,
                                CUmemPoolPtrExportData* shareData) {
  Pool* found = nullptr;
  CUresult result = find_pool(pool, shareData, &found);
  if (result != CUDA_SUCCESS) return result;
  if (ptr_out == nullptr || !found->origin) return CUDA_ERROR_INVALID_VALUE;
  const auto handle = std::bit_cast<wire::InterprocessHandle>(*shareData);
  if (handle.magic != found->origin->magic || handle.kind != wire::Shared::pool_memory ||
      handle.device != found->origin->device || handle.worker != found->origin->worker ||
      handle.pool != found->origin->pool) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Context* context = thread_state.current;
  if (context == nullptr || context->device != found->device) {
    result = primary_context(found->device, &context);
    if (result != CUDA_SUCCESS) return result;
  }
  Range range;
  range.kind = MemoryKind::pool;
  range.pool = found;
  result = import_memory(context, handle, &range);
  if (result != CUDA_SUCCESS) return result;
  found->used.fetch_add(range.bytes);
  *ptr_out = range.base;
  return CUDA_SUCCESS;
}

CUresult cuMemPoolDestroy(CUmemoryPool pool) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Pool* found = find(pool);
  if (found == nullptr || found->is_default) return CUDA_ERROR_INVALID_VALUE;
  {
    const std::lock_guard guard(found->device->mutex);
    if (found->device->current_pool == found) found->device->current_pool = nullptr;
  }
  found->destroyed.store(true);
  if (found->used.load() == 0) retire(found);
  return CUDA_SUCCESS;
}

// What is free goes back at once, so that there is never anything to trim.
CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  return find(pool) != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemPoolSetAccess(CUmemoryPool pool, const CUmemAccessDesc* map, size_t count) {
  Pool* found = nullptr;
  if (const CUresult result = find_pool(pool, map, &found); result != CUDA_SUCCESS) return result;
  for (size_t i = 0; i < count; ++i) {
    const Device* device = find_device(map[i].location.id);
    if (map[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE || device == nullptr) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    const bool own = device == found->device;
    const bool wanted = map[i].flags != CU_MEM_ACCESS_FLAGS_PROT_NONE;
    if (own && !wanted) return CUDA_ERROR_INVALID_DEVICE;  // a device always reaches its own pools
    const std::lock_guard guard(found->device->mutex);
    if (own || wanted == found->viewers.contains(device->ordinal)) continue;
    if (!reaches(*device, *found->device)) return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
    const CUresult result = set_viewer(found, *device, wanted);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

CUresult cuMemPoolGetAccess(CUmemAccess_flags* flags, CUmemoryPool memPool,
                            CUmemLocation* location) {
  Pool* found = nullptr;
  if (const CUresult result = find_pool(memPool, flags, &found); result != CUDA_SUCCESS) {
    return result;
  }
  if (location == nullptr || location->type != CU_MEM_LOCATION_TYPE_DEVICE) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const Device* device = find_device(location->id);
  if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard guard(found->device->mutex);
  const bool open = device == found->device || found->viewers.contains(device->ordinal);
  *flags = open ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_NONE;
  return CUDA_SUCCESS;
}

CUresult cuMemAllocAsync(CUdeviceptr* dptr, size_t bytesize, CUstream hStream) {
  return allocate(dptr, bytesize, nullptr, hStream);
}

CUresult cuMemAllocFromPoolAsync(CUdeviceptr* dptr, size_t bytesize, CUmemoryPool pool,
                                 CUstream hStream) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (find(pool) == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return allocate(dptr, bytesize, pool, hStream);
}

CUresult cuMemFreeAsync(CUdeviceptr dptr, CUstream hStream) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  if (dptr == 0) return CUDA_SUCCESS;
  Range range;
  if (addresses().find(dptr, &range) && range.kind == MemoryKind::graph) {
    // It stays as long as its graph; a captured free is a node all the same.
    if (range.base != dptr) return CUDA_ERROR_INVALID_VALUE;
    if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
    if (!is_captured(stream)) return CUDA_SUCCESS;
    return send(stream, wire::command::CaptureFree{.stream = stream->head.id(), .address = dptr});
  }
  if (is_captured(stream)) return CUDA_ERROR_INVALID_VALUE;
  if (!addresses().remove(dptr, MemoryKind::pool, MemoryKind::device, &range)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (range.pool != nullptr) give_back(range.pool, range.bytes);
  bool away = false;
  CUresult result = stream_for(range, &stream, &away, Beyond::server);
  if (result == CUDA_SUCCESS) result = note_work(stream);
  if (result != CUDA_SUCCESS) return result;
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
