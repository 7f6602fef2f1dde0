// Pinned host memory: ours, or the program's own; it lives in this process and is only marked here.
// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>

#include "base/log.hpp"
#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

constexpr unsigned allocate_flags =
    CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
constexpr unsigned register_flags =
    CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_READ_ONLY;
constexpr size_t page_bytes = 4096;

size_t whole_pages(size_t bytes) { return (bytes + page_bytes - 1) & ~(page_bytes - 1); }

CUresult allocate(void** out, size_t bytes, unsigned flags) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (out == nullptr || bytes == 0 || (flags & ~allocate_flags) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (const CUresult result = check_unsafe(); result != CUDA_SUCCESS) return result;
  // Not locked: over a network nothing reads it by physical address, and the limit on locked memory
  // is often a few MiB.
  void* memory = ::mmap(nullptr, whole_pages(bytes), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  Range range;
  range.base = reinterpret_cast<uint64_t>(memory);
  range.bytes = bytes;
  range.context = context;
  range.device = context->device;
  range.flags = flags;
  range.kind = MemoryKind::pinned;
  addresses().add(range);
  *out = memory;
  return CUDA_SUCCESS;
}

}  // namespace

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
  // Copies that are under way still read or write it: as natively, freeing waits for them.
  if (!range.context->destroyed.load() && range.context->trouble.load() == 0) {
    shim::cuCtxSynchronize_v2(handle(range.context));
  }
  range.context->server->bulk().drain();
  if (!addresses().remove(range.base, MemoryKind::pinned, MemoryKind::pinned, nullptr)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  ::munmap(p, whole_pages(range.bytes));
  return CUDA_SUCCESS;
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
  addresses().remove(range.base, MemoryKind::registered, MemoryKind::registered, nullptr);
  return CUDA_SUCCESS;
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* pdptr, void* p, unsigned int Flags) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (pdptr == nullptr || Flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (!addresses().is_pinned(p, 1)) return CUDA_ERROR_INVALID_VALUE;
  static const char said[] = "mapped";
  say_once(
      said,
      "the program asks for a device's view of its host memory, which a GPU over the network does "
      "not have; it gets CUDA_ERROR_NOT_SUPPORTED (copy instead)");
  return CUDA_ERROR_NOT_SUPPORTED;
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
