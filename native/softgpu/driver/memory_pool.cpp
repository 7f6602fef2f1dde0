// Memory pools and stream-ordered allocation.
// SPDX-License-Identifier: Apache-2.0
#include "memory_pool.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "capture.hpp"
#include "graph_memory.hpp"
#include "guard.hpp"
#include "memory_map.hpp"
#include "submit.hpp"

namespace softgpu {

HandleTable<MemoryPool, CUmemoryPool, 6>& memory_pools() {
  static auto& table = *new HandleTable<MemoryPool, CUmemoryPool, 6>;
  return table;
}

uint64_t MemoryPool::allocate(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  if (max_bytes_ != 0 && used_ + bytes > max_bytes_) return 0;
  uint64_t base = device.heap.allocate(bytes);
  if (base == 0) return 0;
  used_ += bytes;
  used_high_ = std::max(used_high_, used_);
  return base;
}

void MemoryPool::release(uint64_t base, uint64_t bytes) {
  device.heap.release(base);
  std::lock_guard lock(mutex_);
  used_ -= bytes;
}

CUresult MemoryPool::get_attribute(CUmemPool_attribute attribute, void* value) const {
  std::lock_guard lock(mutex_);
  uint64_t wide;
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      std::memcpy(value, &reuse_[attribute], sizeof(int));
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      wide = release_threshold_;
      break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
      wide = used_;
      break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
      wide = used_high_;
      break;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  std::memcpy(value, &wide, sizeof wide);
  return CUDA_SUCCESS;
}

CUresult MemoryPool::set_attribute(CUmemPool_attribute attribute, const void* value) {
  std::lock_guard lock(mutex_);
  uint64_t wide = 0;
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      std::memcpy(&reuse_[attribute], value, sizeof(int));
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      std::memcpy(&release_threshold_, value, sizeof release_threshold_);
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
      std::memcpy(&wide, value, sizeof wide);
      if (wide != 0) return CUDA_ERROR_INVALID_VALUE;  // they can only be reset
      used_high_ = used_;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

std::shared_ptr<MemoryPool> default_pool(Device& device) {
  std::lock_guard lock(device.pool_mutex);
  if (!device.default_pool) {
    auto pool = std::make_shared<MemoryPool>(device, 0);
    pool->is_default = true;
    pool->handle = memory_pools().insert(pool);
    device.default_pool = std::move(pool);
  }
  return device.default_pool;
}

std::shared_ptr<MemoryPool> current_pool(Device& device) {
  {
    std::lock_guard lock(device.pool_mutex);
    if (device.current_pool) return device.current_pool;
  }
  return default_pool(device);
}

}  // namespace softgpu

using namespace softgpu;

namespace {

CUresult allocate(Context& context, MemoryPool& pool, size_t bytes, CUdeviceptr* out) {
  uint64_t base = pool.allocate(bytes);
  if (base == 0) {
    // What was freed in stream order may not have gone back yet.
    context.synchronize();
    base = pool.allocate(bytes);
  }
  if (base == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  Allocation a;
  a.base = base;
  a.size = bytes;
  a.kind = MemoryKind::pool;
  a.device = &pool.device;
  a.context = context.handle;
  a.context_id = context.id;
  a.pool = pool.shared_from_this();
  MemoryMap::get().insert(std::move(a));
  *out = base;
  return CUDA_SUCCESS;
}

CUresult allocate_in_order(Context& context, std::shared_ptr<MemoryPool> pool, size_t bytes,
                           CUstream handle, CUdeviceptr* out) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::shared_ptr<Stream> stream;
  if (CUresult r = stream_of(context, handle, &stream); r != CUDA_SUCCESS) return r;
  if (bytes == 0) {
    *out = 0;
    return CUDA_SUCCESS;
  }
  if (stream->capturing.load()) return capture_allocation(*stream, *pool, bytes, out);
  // The memory is there at once, which stream order allows.
  return allocate(context, *pool, bytes, out);
}

template <class Call>
CUresult with_pool(CUmemoryPool handle, Call&& call) noexcept {
  return with_driver([&]() -> CUresult {
    std::shared_ptr<MemoryPool> pool = memory_pools().find(handle);
    return pool ? call(pool) : CUDA_ERROR_INVALID_VALUE;
  });
}

template <class Call>
CUresult with_pool_device(const CUmemLocation* location, CUmemAllocationType type, Call&& call) {
  return with_driver([&]() -> CUresult {
    if (location == nullptr || location->type != CU_MEM_LOCATION_TYPE_DEVICE ||
        type != CU_MEM_ALLOCATION_TYPE_PINNED) {
      return CUDA_ERROR_NOT_SUPPORTED;
    }
    Device* device = Driver::get().device(location->id);
    return device ? call(*device) : CUDA_ERROR_INVALID_DEVICE;
  });
}

}  // namespace

extern "C" CUresult cuMemAllocAsync(CUdeviceptr* out, size_t bytes, CUstream stream) {
  return with_context([&](Context& context) {
    return allocate_in_order(context, current_pool(context.device), bytes, stream, out);
  });
}

extern "C" CUresult cuMemAllocFromPoolAsync(CUdeviceptr* out, size_t bytes, CUmemoryPool handle,
                                            CUstream stream) {
  return with_context([&](Context& context) {
    std::shared_ptr<MemoryPool> pool = memory_pools().find(handle);
    if (!pool || pool->origin) return CUDA_ERROR_INVALID_VALUE;
    return allocate_in_order(context, std::move(pool), bytes, stream, out);
  });
}

extern "C" CUresult cuMemFreeAsync(CUdeviceptr base, CUstream handle) {
  return with_context([&](Context& context) {
    std::shared_ptr<Stream> stream;
    if (CUresult r = stream_of(context, handle, &stream); r != CUDA_SUCCESS) return r;
    if (base == 0) return CUDA_ERROR_INVALID_VALUE;
    if (stream->capturing.load()) return capture_operation(*stream, FreeContent{base});
    auto found = MemoryMap::get().find(base);
    bool opened = found && found->imported && found->kind == MemoryKind::device;
    if (!found || found->base != base || opened ||
        (found->kind != MemoryKind::pool && found->kind != MemoryKind::device)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    uint64_t id = found->buffer_id;
    return submit(context, handle, TaskOperation{[base, id] {
                    if (auto a = MemoryMap::get().erase_id(base, id)) MemoryMap::release(*a);
                  }});
  });
}

extern "C" CUresult cuMemPoolCreate(CUmemoryPool* out, const CUmemPoolProps* properties) {
  return with_driver([&] {
    if (out == nullptr || properties == nullptr ||
        properties->allocType != CU_MEM_ALLOCATION_TYPE_PINNED) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (properties->location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
        (properties->handleTypes & ~CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) != 0) {
      return CUDA_ERROR_NOT_SUPPORTED;
    }
    Device* device = Driver::get().device(properties->location.id);
    if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    auto pool = std::make_shared<MemoryPool>(*device, properties->maxSize);
    pool->shareable = properties->handleTypes != CU_MEM_HANDLE_TYPE_NONE;
    pool->handle = memory_pools().insert(pool);
    *out = pool->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemPoolDestroy(CUmemoryPool handle) {
  return with_pool(handle, [&](std::shared_ptr<MemoryPool>& pool) {
    if (pool->is_default) return CUDA_ERROR_INVALID_VALUE;
    memory_pools().erase(handle);  // it lives on until its allocations are freed
    std::lock_guard lock(pool->device.pool_mutex);
    if (pool->device.current_pool == pool) pool->device.current_pool.reset();
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemPoolSetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute,
                                          void* value) {
  return with_pool(handle, [&](std::shared_ptr<MemoryPool>& pool) {
    return value == nullptr ? CUDA_ERROR_INVALID_VALUE : pool->set_attribute(attribute, value);
  });
}
extern "C" CUresult cuMemPoolGetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute,
                                          void* value) {
  return with_pool(handle, [&](std::shared_ptr<MemoryPool>& pool) {
    return value == nullptr ? CUDA_ERROR_INVALID_VALUE : pool->get_attribute(attribute, value);
  });
}
extern "C" CUresult cuMemPoolTrimTo(CUmemoryPool handle, size_t) {
  return with_pool(handle, [](std::shared_ptr<MemoryPool>&) { return CUDA_SUCCESS; });
}

extern "C" CUresult cuMemPoolSetAccess(CUmemoryPool handle, const CUmemAccessDesc* map,
                                       size_t count) {
  return with_pool(handle, [&](std::shared_ptr<MemoryPool>& pool) {
    if (map == nullptr && count > 0) return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; ++i) {
      Device* viewer = Driver::get().device(map[i].location.id);
      if (map[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE || viewer == nullptr) {
        return CUDA_ERROR_INVALID_VALUE;
      }
      if (viewer == &pool->device) continue;
      bool wanted = map[i].flags != CU_MEM_ACCESS_FLAGS_PROT_NONE;
      if (wanted && !pool->device.has_viewer(viewer)) pool->device.add_viewer(viewer);
    }
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuMemPoolGetAccess(CUmemAccess_flags* out, CUmemoryPool handle,
                                       CUmemLocation* location) {
  return with_pool(handle, [&](std::shared_ptr<MemoryPool>& pool) {
    if (out == nullptr || location == nullptr) return CUDA_ERROR_INVALID_VALUE;
    Device* viewer = Driver::get().device(location->id);
    if (location->type != CU_MEM_LOCATION_TYPE_DEVICE || viewer == nullptr) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    *out = pool->device.has_viewer(viewer) ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
                                           : CU_MEM_ACCESS_FLAGS_PROT_NONE;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* out, CUdevice ordinal) {
  CUmemLocation location{CU_MEM_LOCATION_TYPE_DEVICE, {ordinal}};
  return cuMemGetDefaultMemPool(out, &location, CU_MEM_ALLOCATION_TYPE_PINNED);
}
extern "C" CUresult cuDeviceGetMemPool(CUmemoryPool* out, CUdevice ordinal) {
  CUmemLocation location{CU_MEM_LOCATION_TYPE_DEVICE, {ordinal}};
  return cuMemGetMemPool(out, &location, CU_MEM_ALLOCATION_TYPE_PINNED);
}
extern "C" CUresult cuDeviceSetMemPool(CUdevice ordinal, CUmemoryPool pool) {
  CUmemLocation location{CU_MEM_LOCATION_TYPE_DEVICE, {ordinal}};
  return cuMemSetMemPool(&location, CU_MEM_ALLOCATION_TYPE_PINNED, pool);
}

extern "C" CUresult cuMemGetDefaultMemPool(CUmemoryPool* out, CUmemLocation* location,
                                           CUmemAllocationType type) {
  return with_pool_device(location, type, [&](Device& device) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = default_pool(device)->handle;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuMemGetMemPool(CUmemoryPool* out, CUmemLocation* location,
                                    CUmemAllocationType type) {
  return with_pool_device(location, type, [&](Device& device) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = current_pool(device)->handle;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuMemSetMemPool(CUmemLocation* location, CUmemAllocationType type,
                                    CUmemoryPool handle) {
  return with_pool_device(location, type, [&](Device& device) {
    std::shared_ptr<MemoryPool> pool = memory_pools().find(handle);
    if (!pool || &pool->device != &device || pool->origin) return CUDA_ERROR_INVALID_VALUE;
    std::lock_guard lock(device.pool_mutex);
    device.current_pool = std::move(pool);
    return CUDA_SUCCESS;
  });
}
