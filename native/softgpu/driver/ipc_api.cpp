// Entry points about memory and events of other processes.
// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "event.hpp"
#include "guard.hpp"
#include "ipc.hpp"
#include "memory_map.hpp"
#include "memory_pool.hpp"

using namespace softgpu;

namespace {

constexpr uint64_t kPage = 4096;

struct Opened {
  CUdeviceptr address = 0;
  uint64_t buffer_id = 0;
  unsigned references = 0;
};

struct OpenedHandles {
  std::mutex mutex;
  std::map<std::pair<uint64_t, std::array<uint8_t, 16>>, Opened> all;  // by context and token
};

OpenedHandles& opened() {
  static auto& value = *new OpenedHandles;
  return value;
}

bool stands(const Opened& memory) {
  auto found = MemoryMap::get().find(memory.address);
  return found && found->buffer_id == memory.buffer_id;
}

CUresult share_memory(const Allocation& memory, SharedHandle* handle) {
  const Heap& heap = memory.device->heap;
  if (heap.file() < 0) return CUDA_ERROR_NOT_SUPPORTED;
  SharedPlace place{heap.file_offset(memory.base), memory.size, memory.device->ordinal,
                    heap.file()};
  auto what = [place, base = memory.base, id = memory.buffer_id]() -> std::optional<SharedPlace> {
    auto now = MemoryMap::get().find(base);
    if (!now || now->buffer_id != id) return std::nullopt;
    return place;
  };
  return share(SharedKind::memory, memory.buffer_id, std::move(what), handle);
}

/// Maps another process's memory and enters it, as of `kind`.
CUresult map_memory(Context& context, const SharedHandle& handle, Allocation memory,
                    CUdeviceptr* out) {
  if (handle.process == own_process()) return CUDA_ERROR_INVALID_CONTEXT;
  SharedPlace place;
  if (CUresult r = obtain(handle, &place); r != CUDA_SUCCESS) return r;
  if (place.device != context.device.ordinal) {
    close(place.fd);
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  uint64_t before = place.file_offset % kPage;
  memory.physical_offset = before;
  memory.size = place.bytes;
  void* mapped = mmap(nullptr, mapped_bytes(memory), PROT_READ | PROT_WRITE, MAP_SHARED, place.fd,
                      static_cast<off_t>(place.file_offset - before));
  close(place.fd);
  if (mapped == MAP_FAILED) return CUDA_ERROR_MAP_FAILED;
  memory.base = reinterpret_cast<uint64_t>(mapped) + before;
  memory.imported = true;
  memory.device = &context.device;
  memory.context = context.handle;
  memory.context_id = context.id;
  context.device.publish({memory.base, memory.size});
  *out = memory.base;
  MemoryMap::get().insert(std::move(memory));
  return CUDA_SUCCESS;
}

/// A file that holds a handle, for programs that pass descriptors.
CUresult write_descriptor(const SharedHandle& handle, void* out) {
  int fd = memfd_create("softgpu-pool", MFD_CLOEXEC);
  if (fd < 0 || write(fd, &handle, sizeof handle) != sizeof handle) {
    if (fd >= 0) close(fd);
    return CUDA_ERROR_OPERATING_SYSTEM;
  }
  std::memcpy(out, &fd, sizeof fd);
  return CUDA_SUCCESS;
}

std::shared_ptr<MemoryPool> shareable_pool(CUmemoryPool handle) {
  auto pool = memory_pools().find(handle);
  return pool && pool->shareable ? pool : nullptr;
}

}  // namespace

extern "C" CUresult cuIpcGetMemHandle(CUipcMemHandle* out, CUdeviceptr pointer) {
  return with_context([&](Context&) -> CUresult {
    auto found = MemoryMap::get().find(pointer);
    if (out == nullptr || !found || found->kind != MemoryKind::device || found->imported) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    SharedHandle handle;
    if (CUresult r = share_memory(*found, &handle); r != CUDA_SUCCESS) return r;
    *out = std::bit_cast<CUipcMemHandle>(handle);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuIpcOpenMemHandle_v2(CUdeviceptr* out, CUipcMemHandle opaque,
                                          unsigned int flags) {
  return with_context([&](Context& context) -> CUresult {
    auto handle = std::bit_cast<SharedHandle>(opaque);
    if (out == nullptr || flags != CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (!is_handle(handle, SharedKind::memory)) return CUDA_ERROR_INVALID_VALUE;
    std::lock_guard lock(opened().mutex);
    Opened& memory = opened().all[{context.id, handle.token}];
    if (memory.references == 0 || !stands(memory)) {
      memory = {};
      Allocation allocation;
      allocation.kind = MemoryKind::device;
      if (CUresult r = map_memory(context, handle, allocation, &memory.address);
          r != CUDA_SUCCESS) {
        opened().all.erase({context.id, handle.token});
        return r == CUDA_ERROR_INVALID_HANDLE ? CUDA_ERROR_INVALID_VALUE : r;
      }
      memory.buffer_id = MemoryMap::get().find(memory.address)->buffer_id;
    }
    ++memory.references;
    *out = memory.address;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuIpcOpenMemHandle(CUdeviceptr* out, CUipcMemHandle handle,
                                       unsigned int flags) {
  return cuIpcOpenMemHandle_v2(out, handle, flags);
}

extern "C" CUresult cuIpcCloseMemHandle(CUdeviceptr pointer) {
  return with_context([&](Context& context) -> CUresult {
    std::lock_guard lock(opened().mutex);
    auto& all = opened().all;
    auto found = std::find_if(all.begin(), all.end(), [&](const auto& entry) {
      return entry.second.address == pointer && stands(entry.second);
    });
    if (found == all.end()) return CUDA_ERROR_INVALID_VALUE;
    if (--found->second.references > 0) return CUDA_SUCCESS;
    Opened memory = found->second;
    all.erase(found);
    context.synchronize();
    if (auto a = MemoryMap::get().erase_id(pointer, memory.buffer_id)) MemoryMap::release(*a);
    return context.fault();
  });
}

extern "C" CUresult cuIpcGetEventHandle(CUipcEventHandle* out, CUevent value) {
  return with_context([&](Context&) -> CUresult {
    auto event = events().find(value);
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!event || !event->shared) return CUDA_ERROR_INVALID_HANDLE;
    auto what = [weak = std::weak_ptr(event->shared)]() -> std::optional<SharedPlace> {
      auto shared = weak.lock();
      if (!shared) return std::nullopt;
      return SharedPlace{0, 0, 0, shared->fd()};
    };
    SharedHandle handle;
    CUresult r = share(SharedKind::event, reinterpret_cast<uint64_t>(value), what, &handle);
    if (r == CUDA_SUCCESS) *out = std::bit_cast<CUipcEventHandle>(handle);
    return r;
  });
}

extern "C" CUresult cuIpcOpenEventHandle(CUevent* out, CUipcEventHandle opaque) {
  return with_context([&](Context& context) -> CUresult {
    auto handle = std::bit_cast<SharedHandle>(opaque);
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!is_handle(handle, SharedKind::event)) return CUDA_ERROR_MAP_FAILED;
    if (handle.process == own_process()) return CUDA_ERROR_INVALID_CONTEXT;
    SharedPlace place;
    if (CUresult r = obtain(handle, &place); r != CUDA_SUCCESS) {
      return r == CUDA_ERROR_INVALID_HANDLE ? CUDA_ERROR_MAP_FAILED : r;
    }
    auto event = std::make_shared<Event>();
    event->shared = SharedEvent::open(place.fd);
    if (!event->shared) return CUDA_ERROR_MAP_FAILED;
    event->context = context.weak_from_this();
    event->flags = CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING;
    event->handle = events().insert(event);
    *out = event->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemPoolExportToShareableHandle(void* out, CUmemoryPool value,
                                                     CUmemAllocationHandleType type,
                                                     unsigned long long flags) {
  return with_driver([&]() -> CUresult {
    if (out == nullptr || flags != 0 || !shareable_pool(value)) return CUDA_ERROR_INVALID_VALUE;
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
    SharedHandle handle;
    auto nothing = []() -> std::optional<SharedPlace> { return std::nullopt; };
    const auto number = reinterpret_cast<uint64_t>(value);
    if (CUresult r = share(SharedKind::pool, number, nothing, &handle); r != CUDA_SUCCESS) return r;
    handle.pool = number;
    return write_descriptor(handle, out);
  });
}

extern "C" CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool* out, void* os_handle,
                                                       CUmemAllocationHandleType type,
                                                       unsigned long long flags) {
  return with_context([&](Context& context) -> CUresult {
    if (out == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
    SharedHandle handle;
    int fd = static_cast<int>(reinterpret_cast<intptr_t>(os_handle));
    if (pread(fd, &handle, sizeof handle, 0) != sizeof handle ||
        !is_handle(handle, SharedKind::pool)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    auto pool = std::make_shared<MemoryPool>(context.device, 0);
    pool->origin = handle;
    pool->handle = memory_pools().insert(pool);
    *out = pool->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemPoolExportPointer(CUmemPoolPtrExportData* out, CUdeviceptr pointer) {
  return with_context([&](Context&) -> CUresult {
    auto found = MemoryMap::get().find(pointer);
    if (out == nullptr || !found || found->base != pointer || found->kind != MemoryKind::pool ||
        !found->pool->shareable) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    SharedHandle handle;
    if (CUresult r = share_memory(*found, &handle); r != CUDA_SUCCESS) return r;
    handle.pool = reinterpret_cast<uint64_t>(found->pool->handle);
    *out = std::bit_cast<CUmemPoolPtrExportData>(handle);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemPoolImportPointer(CUdeviceptr* out, CUmemoryPool value,
                                           CUmemPoolPtrExportData* data) {
  return with_context([&](Context& context) -> CUresult {
    auto pool = memory_pools().find(value);
    if (out == nullptr || data == nullptr || !pool || !pool->origin) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    auto handle = std::bit_cast<SharedHandle>(*data);
    if (!is_handle(handle, SharedKind::memory) || handle.process != pool->origin->process ||
        handle.pool != pool->origin->pool) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    Allocation allocation;
    allocation.kind = MemoryKind::pool;
    allocation.pool = std::move(pool);
    return map_memory(context, handle, allocation, out);
  });
}
