// Pinned host memory: ours, shared with the server where that is on this host, or the program's.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/host_memory.hpp"

#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/shared_pages.hpp"

namespace outboard::shim {
namespace {

constexpr uint64_t page_bytes = 4096;

constexpr unsigned allocate_flags =
    CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
constexpr unsigned register_flags =
    CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_READ_ONLY;

CUresult allocate(void** out, size_t bytes, unsigned flags) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (out == nullptr || bytes == 0 || (flags & ~allocate_flags) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (const CUresult result = check_unsafe(); result != CUDA_SUCCESS) return result;
  Range range;
  range.bytes = bytes;
  range.flags = flags;
  range.kind = MemoryKind::pinned;
  const CUresult result = allocate_host(context, &range);
  if (result == CUDA_SUCCESS) *out = reinterpret_cast<void*>(range.base);
  return result;
}

}  // namespace

CUresult allocate_host(Context* context, Range* range) {
  void* memory = make_shared_pages(context, range->bytes);
  range->shared = memory != nullptr;
  // Not locked: over a network nothing reads it by physical address, and the limit on locked memory
  // is often a few MiB.
  if (memory == nullptr) memory = make_visible_memory(range->bytes);
  if (memory == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  range->base = reinterpret_cast<uint64_t>(memory);
  range->context = context;
  range->device = context->device;
  addresses().add(*range);
  return CUDA_SUCCESS;
}

CUresult free_host(const Range& range) {
  // Copies that are under way still read or write it: as natively, freeing waits for them.
  if (!range.context->destroyed.load() && range.context->trouble.load() == 0) {
    shim::cuCtxSynchronize_v2(handle(range.context));
  }
  range.context->server->bulk().drain();
  if (!addresses().remove(range.base, range.kind, range.kind, nullptr)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  end_views(range.base);
  end_shared_pages(range);
  free_visible_memory(reinterpret_cast<void*>(range.base), range.bytes);
  return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void** pp, size_t bytesize, unsigned int Flags) {
  return allocate(pp, bytesize, Flags);
}

CUresult cuMemAllocHost_v2(void** pp, size_t bytesize) { return allocate(pp, bytesize, 0); }

CUresult cuMemFreeHost(void* p) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (p == nullptr) return CUDA_SUCCESS;
  Range range;
  if (!addresses().find(reinterpret_cast<uint64_t>(p), &range) ||
      range.base != reinterpret_cast<uint64_t>(p) || range.kind != MemoryKind::pinned) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return free_host(range);
}

CUresult cuMemHostRegister_v2(void* p, size_t bytesize, unsigned int Flags) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (p == nullptr || bytesize == 0) return CUDA_ERROR_INVALID_VALUE;
  if ((Flags & CU_MEMHOSTREGISTER_IOMEMORY) != 0) return CUDA_ERROR_NOT_SUPPORTED;
  if ((Flags & ~register_flags) != 0) return CUDA_ERROR_INVALID_VALUE;
  Range range;
  range.base = reinterpret_cast<uint64_t>(p);
  range.bytes = bytesize;
  range.context = context;
  range.device = context->device;
  range.flags = Flags;
  range.kind = MemoryKind::registered;
  return addresses().add(range) ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}

CUresult cuMemHostUnregister(void* p) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Range range;
  if (!addresses().find(reinterpret_cast<uint64_t>(p), &range) ||
      range.base != reinterpret_cast<uint64_t>(p) || range.kind != MemoryKind::registered) {
    return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
  }
  if (range.context->trouble.load() == 0) shim::cuCtxSynchronize_v2(handle(range.context));
  range.context->server->bulk().drain();
  addresses().remove(range.base, MemoryKind::registered, MemoryKind::registered, &range);
  if (range.partner != 0) {
    addresses().remove(range.partner, MemoryKind::alias, MemoryKind::alias, nullptr);
    end_views(range.partner);
    const uint64_t shift = range.partner % page_bytes;
    free_visible_memory(reinterpret_cast<void*>(range.partner - shift), range.bytes + shift);
  }
  return CUDA_SUCCESS;
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* pdptr, void* p, unsigned int Flags) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  const auto address = reinterpret_cast<uint64_t>(p);
  Range range;
  if (pdptr == nullptr || Flags != 0 || !addresses().find(address, &range) || range.on_device()) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *pdptr = range.kind == MemoryKind::registered ? alias_of(address) : address;
  if (range.kind == MemoryKind::pinned) addresses().set_partner(range.base, range.base);
  return *pdptr != 0 ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemHostGetFlags(unsigned int* pFlags, void* p) {
  Context* context = nullptr;
  if (const CUresult result = enter_local(&context); result != CUDA_SUCCESS) return result;
  Range range;
  if (pFlags == nullptr || !addresses().find(reinterpret_cast<uint64_t>(p), &range) ||
      range.kind != MemoryKind::pinned) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *pFlags = range.flags;
  return CUDA_SUCCESS;
}

}  // namespace outboard::shim
