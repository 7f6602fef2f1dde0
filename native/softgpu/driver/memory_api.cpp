// Entry points about device memory and pinned host memory.
// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>

#include <algorithm>

#include "guard.hpp"
#include "memory_map.hpp"

using namespace softgpu;

namespace {

constexpr size_t kPage = 4096;

CUresult allocate(Context& context, size_t bytes, CUdeviceptr* out) {
  if (out == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  uint64_t base = context.device.heap.allocate(bytes);
  if (base == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  Allocation a;
  a.base = base;
  a.size = bytes;
  a.kind = MemoryKind::device;
  a.device = &context.device;
  a.context = context.handle;
  a.context_id = context.id;
  MemoryMap::get().insert(std::move(a));
  *out = base;
  return CUDA_SUCCESS;
}

std::optional<Allocation> find_host(const void* pointer) {
  auto found = MemoryMap::get().find(reinterpret_cast<uint64_t>(pointer));
  return found && found->host() ? found : std::nullopt;
}

}  // namespace

namespace softgpu {

Allocation host_memory(size_t bytes, MemoryKind kind) {
  Allocation a;
  a.size = (bytes + kPage - 1) & ~(kPage - 1);
  a.kind = kind;
  void* memory = mmap(nullptr, a.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return a;
  a.base = reinterpret_cast<uint64_t>(memory);
  publish_host({a.base, a.size});
  return a;
}

CUresult allocate_host(Context& context, void** out, size_t bytes, unsigned flags,
                       MemoryKind kind) {
  if (out == nullptr || bytes == 0 || flags > 7) return CUDA_ERROR_INVALID_VALUE;
  Allocation a = host_memory(bytes, kind);
  if (a.base == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  a.context = context.handle;
  a.context_id = context.id;
  a.flags = flags | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_PORTABLE;
  *out = reinterpret_cast<void*>(a.base);
  MemoryMap::get().insert(std::move(a));
  return CUDA_SUCCESS;
}

}  // namespace softgpu

extern "C" CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
  return with_context([&](Context& context) {
    if (free != nullptr) *free = context.device.free_bytes();
    if (total != nullptr) *total = context.device.total_bytes();
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemAlloc_v2(CUdeviceptr* out, size_t bytes) {
  return with_context_uncaptured([&](Context& context) { return allocate(context, bytes, out); });
}

extern "C" CUresult cuMemAllocPitch_v2(CUdeviceptr* out, size_t* pitch, size_t width, size_t height,
                                       unsigned int element) {
  return with_context_uncaptured([&](Context& context) {
    if (pitch == nullptr || width == 0 || height == 0 ||
        (element != 4 && element != 8 && element != 16)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    size_t row = (width + 511) & ~size_t{511};
    if (row < width || height > SIZE_MAX / row) return CUDA_ERROR_INVALID_VALUE;
    *pitch = row;
    return allocate(context, row * height, out);
  });
}

extern "C" CUresult cuMemFree_v2(CUdeviceptr base) {
  return with_context_uncaptured([&](Context& context) {
    if (base == 0) return CUDA_SUCCESS;
    auto found = MemoryMap::get().find(base);
    bool opened = found && found->imported && found->kind == MemoryKind::device;
    if (!found || found->base != base || opened || found->of_module ||
        (found->kind != MemoryKind::device && found->kind != MemoryKind::pool &&
         found->kind != MemoryKind::managed)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    // Kernels that were launched before may still use it.
    context.synchronize();
    auto owner = found->context == context.handle ? nullptr : find_context(found->context);
    if (owner) owner->synchronize();
    if (auto a = MemoryMap::get().erase(base, found->kind)) MemoryMap::release(*a);
    return context.fault();
  });
}

extern "C" CUresult cuMemGetAddressRange_v2(CUdeviceptr* base, size_t* size, CUdeviceptr pointer) {
  return with_context([&](Context&) {
    auto found = MemoryMap::get().find(pointer);
    if (!found) return CUDA_ERROR_NOT_FOUND;
    if (base != nullptr) *base = found->base;
    if (size != nullptr) *size = found->size;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemAllocHost_v2(void** out, size_t bytes) {
  return with_context_uncaptured(
      [&](Context& context) { return allocate_host(context, out, bytes, 0, MemoryKind::pinned); });
}

extern "C" CUresult cuMemHostAlloc(void** out, size_t bytes, unsigned int flags) {
  return with_context_uncaptured([&](Context& context) {
    return allocate_host(context, out, bytes, flags, MemoryKind::pinned);
  });
}

extern "C" CUresult cuMemFreeHost(void* pointer) {
  return with_context_uncaptured([&](Context& context) {
    if (pointer == nullptr) return CUDA_SUCCESS;
    auto found = find_host(pointer);
    if (!found || found->kind != MemoryKind::pinned ||
        found->base != reinterpret_cast<uint64_t>(pointer)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    context.synchronize();
    if (auto a = MemoryMap::get().erase(found->base, MemoryKind::pinned)) MemoryMap::release(*a);
    return context.fault();
  });
}

extern "C" CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* out, void* pointer,
                                                 unsigned int flags) {
  return with_context([&](Context&) {
    if (out == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (!find_host(pointer)) return CUDA_ERROR_INVALID_VALUE;
    *out = reinterpret_cast<CUdeviceptr>(pointer);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemHostGetFlags(unsigned int* out, void* pointer) {
  return with_context([&](Context&) {
    auto found = find_host(pointer);
    if (out == nullptr || !found) return CUDA_ERROR_INVALID_VALUE;
    *out = found->flags;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuMemHostRegister_v2(void* pointer, size_t bytes, unsigned int flags) {
  return with_context_uncaptured([&](Context& context) {
    constexpr unsigned kKnown = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP |
                                CU_MEMHOSTREGISTER_IOMEMORY | CU_MEMHOSTREGISTER_READ_ONLY;
    if (pointer == nullptr || bytes == 0 || (flags & ~kKnown) != 0) return CUDA_ERROR_INVALID_VALUE;
    if (flags & CU_MEMHOSTREGISTER_IOMEMORY) return CUDA_ERROR_NOT_SUPPORTED;
    Allocation a;
    a.base = reinterpret_cast<uint64_t>(pointer);
    if (a.base + bytes < a.base) return CUDA_ERROR_INVALID_VALUE;
    a.size = bytes;
    a.kind = MemoryKind::registered;
    a.context = context.handle;
    a.context_id = context.id;
    a.flags = flags | CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_PORTABLE;
    // Memory that is not there cannot be pinned.
    size_t pages = ((a.base + bytes + kPage - 1) / kPage) - a.base / kPage;
    std::vector<unsigned char> resident(pages);
    if (mincore(reinterpret_cast<void*>(a.base & ~(kPage - 1)), pages * kPage, resident.data()) !=
        0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (!MemoryMap::get().insert(a)) return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    publish_host({a.base, a.size});
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuMemHostRegister(void* pointer, size_t bytes, unsigned int flags) {
  return cuMemHostRegister_v2(pointer, bytes, flags);
}

extern "C" CUresult cuMemHostUnregister(void* pointer) {
  return with_context_uncaptured([&](Context& context) {
    if (pointer == nullptr) return CUDA_ERROR_INVALID_VALUE;
    auto found = find_host(pointer);
    if (!found || found->kind != MemoryKind::registered ||
        found->base != reinterpret_cast<uint64_t>(pointer)) {
      return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    }
    context.synchronize();
    if (auto a = MemoryMap::get().erase(found->base, MemoryKind::registered)) {
      MemoryMap::release(*a);
    }
    return context.fault();
  });
}
