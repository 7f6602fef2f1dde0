// The null driver's memory calls. Device addresses are numbers; nothing lies there.
// SPDX-License-Identifier: Apache-2.0
#include "null_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <mutex>

#include "api.hpp"

namespace {

struct Block {
  uint64_t bytes;
  bool owned;  // host memory that was mapped here
};

struct Books {
  std::mutex mutex;
  std::map<uint64_t, Block> device;       // cuMemAlloc and pools
  std::map<uint64_t, Block> host;         // pinned and registered
  std::map<uint64_t, uint64_t> chunks;    // cuMemCreate: handle -> bytes
  std::map<uint64_t, uint64_t> reserved;  // cuMemAddressReserve: base -> bytes
  size_t used = 0;
  uint64_t next_address = 0x3'0000'0000'00ull;
  uint64_t next_handle = 1;
};

Books& books() {
  static Books& value = *new Books;
  return value;
}

uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

CUresult allocate(CUdeviceptr* out, size_t bytes) {
  if (out == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  Books& b = books();
  std::lock_guard lock(b.mutex);
  if (bytes > null_memory::kTotal - b.used) return CUDA_ERROR_OUT_OF_MEMORY;
  *out = b.next_address;
  b.next_address += round_up(bytes, 512);
  b.device[*out] = {bytes, false};
  b.used += bytes;
  return CUDA_SUCCESS;
}

CUresult release(CUdeviceptr base) {
  if (base == 0) return CUDA_SUCCESS;
  Books& b = books();
  std::lock_guard lock(b.mutex);
  auto found = b.device.find(base);
  if (found == b.device.end()) return CUDA_ERROR_INVALID_VALUE;
  b.used -= found->second.bytes;
  b.device.erase(found);
  return CUDA_SUCCESS;
}

const Block* containing(const std::map<uint64_t, Block>& blocks, uint64_t address, uint64_t* base) {
  auto next = blocks.upper_bound(address);
  if (next == blocks.begin()) return nullptr;
  --next;
  if (address - next->first >= next->second.bytes) return nullptr;
  *base = next->first;
  return &next->second;
}

CUresult host_allocate(void** out, size_t bytes) {
  if (out == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  bytes = round_up(bytes, 4096);
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  std::lock_guard lock(books().mutex);
  books().host[reinterpret_cast<uint64_t>(p)] = {bytes, true};
  *out = p;
  return CUDA_SUCCESS;
}

CUresult host_release(void* pointer, bool owned, CUresult unknown) {
  if (pointer == nullptr && owned) return CUDA_SUCCESS;
  std::lock_guard lock(books().mutex);
  auto found = books().host.find(reinterpret_cast<uint64_t>(pointer));
  if (found == books().host.end() || found->second.owned != owned) return unknown;
  if (owned) munmap(pointer, found->second.bytes);
  books().host.erase(found);
  return CUDA_SUCCESS;
}

}  // namespace

bool null_memory::host(uint64_t address, uint64_t bytes) {
  std::lock_guard lock(books().mutex);
  uint64_t base = 0;
  const Block* block = containing(books().host, address, &base);
  return block != nullptr && bytes <= base + block->bytes - address;
}

extern "C" {

CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
  std::lock_guard lock(books().mutex);
  if (free != nullptr) *free = null_memory::kTotal - books().used;
  if (total != nullptr) *total = null_memory::kTotal;
  return CUDA_SUCCESS;
}
CUresult cuMemAlloc_v2(CUdeviceptr* out, size_t bytes) { return allocate(out, bytes); }
CUresult cuMemAllocPitch_v2(CUdeviceptr* out, size_t* pitch, size_t width, size_t height,
                            unsigned int) {
  if (pitch == nullptr || height == 0 || width > null_memory::kTotal / height) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *pitch = round_up(width, 512);
  return allocate(out, *pitch * height);
}
CUresult cuMemFree_v2(CUdeviceptr base) { return release(base); }
CUresult cuMemAllocAsync(CUdeviceptr* out, size_t bytes, CUstream) { return allocate(out, bytes); }
CUresult cuMemAllocFromPoolAsync(CUdeviceptr* out, size_t bytes, CUmemoryPool, CUstream) {
  return allocate(out, bytes);
}
CUresult cuMemFreeAsync(CUdeviceptr base, CUstream) { return release(base); }
CUresult cuMemGetAddressRange_v2(CUdeviceptr* base, size_t* bytes, CUdeviceptr address) {
  std::lock_guard lock(books().mutex);
  uint64_t start = 0;
  const Block* block = containing(books().device, address, &start);
  if (block == nullptr) return CUDA_ERROR_NOT_FOUND;
  if (base != nullptr) *base = start;
  if (bytes != nullptr) *bytes = block->bytes;
  return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void** out, size_t bytes, unsigned int) {
  return host_allocate(out, bytes);
}
CUresult cuMemAllocHost_v2(void** out, size_t bytes) { return host_allocate(out, bytes); }
CUresult cuMemFreeHost(void* p) { return host_release(p, true, CUDA_ERROR_INVALID_VALUE); }
CUresult cuMemHostRegister_v2(void* p, size_t bytes, unsigned int) {
  if (p == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard lock(books().mutex);
  bool fresh = books().host.insert({reinterpret_cast<uint64_t>(p), {bytes, false}}).second;
  return fresh ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}
CUresult cuMemHostUnregister(void* p) {
  return host_release(p, false, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
}
CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* out, void* p, unsigned int) {
  if (out == nullptr || !null_memory::host(reinterpret_cast<uint64_t>(p), 1)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *out = reinterpret_cast<CUdeviceptr>(p);
  return CUDA_SUCCESS;
}
CUresult cuMemHostGetFlags(unsigned int* out, void*) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = CU_MEMHOSTALLOC_DEVICEMAP;
  return CUDA_SUCCESS;
}

// Address space is really reserved, so that it collides with nothing; memory behind it is not.
CUresult cuMemAddressReserve(CUdeviceptr* out, size_t bytes, size_t, CUdeviceptr hint,
                             unsigned long long) {
  if (out == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* p = MAP_FAILED;
  if (hint != 0) {
    p = mmap(reinterpret_cast<void*>(hint), bytes, PROT_NONE, kFlags | MAP_FIXED_NOREPLACE, -1, 0);
  }
  if (p == MAP_FAILED) p = mmap(nullptr, bytes, PROT_NONE, kFlags, -1, 0);
  if (p == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  *out = reinterpret_cast<CUdeviceptr>(p);
  std::lock_guard lock(books().mutex);
  books().reserved[*out] = bytes;
  return CUDA_SUCCESS;
}
CUresult cuMemAddressFree(CUdeviceptr base, size_t bytes) {
  std::lock_guard lock(books().mutex);
  auto found = books().reserved.find(base);
  if (found == books().reserved.end() || found->second != bytes) return CUDA_ERROR_INVALID_VALUE;
  books().reserved.erase(found);
  munmap(reinterpret_cast<void*>(base), bytes);
  return CUDA_SUCCESS;
}
CUresult cuMemGetAllocationGranularity(size_t* out, const CUmemAllocationProp*,
                                       CUmemAllocationGranularity_flags) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = size_t{2} << 20;
  return CUDA_SUCCESS;
}
CUresult cuMemCreate(CUmemGenericAllocationHandle* out, size_t bytes, const CUmemAllocationProp*,
                     unsigned long long) {
  if (out == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  Books& b = books();
  std::lock_guard lock(b.mutex);
  if (bytes > null_memory::kTotal - b.used) return CUDA_ERROR_OUT_OF_MEMORY;
  *out = (0x4full << 56) | (b.next_handle++ << 4);
  b.chunks[*out] = bytes;
  b.used += bytes;
  return CUDA_SUCCESS;
}
CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
  Books& b = books();
  std::lock_guard lock(b.mutex);
  auto found = b.chunks.find(handle);
  if (found == b.chunks.end()) return CUDA_ERROR_INVALID_VALUE;
  b.used -= found->second;
  b.chunks.erase(found);
  return CUDA_SUCCESS;
}
CUresult cuMemMap(CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long) {
  return CUDA_SUCCESS;
}
CUresult cuMemUnmap(CUdeviceptr, size_t) { return CUDA_SUCCESS; }
CUresult cuMemSetAccess(CUdeviceptr, size_t, const CUmemAccessDesc*, size_t) {
  return CUDA_SUCCESS;
}
CUresult cuMemExportToShareableHandle(void* out, CUmemGenericAllocationHandle,
                                      CUmemAllocationHandleType, unsigned long long) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  int fd = memfd_create("nulldriver", MFD_CLOEXEC);
  if (fd < 0) return CUDA_ERROR_OPERATING_SYSTEM;
  *static_cast<int*>(out) = fd;
  return CUDA_SUCCESS;
}
CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle* out, void*,
                                        CUmemAllocationHandleType) {
  return cuMemCreate(out, size_t{2} << 20, nullptr, 0);
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* out, CUdevice) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<CUmemoryPool>(0x5000'0000'0000'0010ull);
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetMemPool(CUmemoryPool* out, CUdevice d) {
  return cuDeviceGetDefaultMemPool(out, d);
}
CUresult cuDeviceSetMemPool(CUdevice, CUmemoryPool) { return CUDA_SUCCESS; }
CUresult cuMemPoolCreate(CUmemoryPool* out, const CUmemPoolProps*) {
  return cuDeviceGetDefaultMemPool(out, 0);
}
CUresult cuMemPoolDestroy(CUmemoryPool) { return CUDA_SUCCESS; }
CUresult cuMemPoolTrimTo(CUmemoryPool, size_t) { return CUDA_SUCCESS; }
CUresult cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute, void*) { return CUDA_SUCCESS; }
CUresult cuMemPoolGetAttribute(CUmemoryPool, CUmemPool_attribute a, void* out) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (a <= CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES) {
    *static_cast<int*>(out) = 0;
  } else {
    *static_cast<cuuint64_t*>(out) = 0;
  }
  return CUDA_SUCCESS;
}

// Nothing is copied, set or decompressed.
CUresult cuMemBatchDecompressAsync(CUmemDecompressParams* operations, size_t count, unsigned flags,
                                   size_t* wrong, CUstream) {
  if (wrong != nullptr) *wrong = SIZE_MAX;
  if (operations == nullptr || count == 0 || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; ++i) {
    const CUmemDecompressParams& one = operations[i];
    if (one.src != nullptr && one.dst != nullptr && one.dstActBytes != nullptr &&
        (one.algo & null_memory::kAlgorithms) != 0) {
      continue;
    }
    if (wrong != nullptr) *wrong = i;
    return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}
CUresult cuMemcpy(CUdeviceptr, CUdeviceptr, size_t) { return CUDA_SUCCESS; }
CUresult cuMemcpyAsync(CUdeviceptr, CUdeviceptr, size_t, CUstream) { return CUDA_SUCCESS; }
CUresult cuMemcpyHtoD_v2(CUdeviceptr, const void*, size_t) { return CUDA_SUCCESS; }
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr, const void*, size_t, CUstream) { return CUDA_SUCCESS; }
CUresult cuMemcpyDtoH_v2(void*, CUdeviceptr, size_t) { return CUDA_SUCCESS; }
CUresult cuMemcpyDtoHAsync_v2(void*, CUdeviceptr, size_t, CUstream) { return CUDA_SUCCESS; }
CUresult cuMemcpyDtoD_v2(CUdeviceptr, CUdeviceptr, size_t) { return CUDA_SUCCESS; }
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr, CUdeviceptr, size_t, CUstream) { return CUDA_SUCCESS; }
CUresult cuMemcpyPeer(CUdeviceptr, CUcontext, CUdeviceptr, CUcontext, size_t) {
  return CUDA_SUCCESS;
}
CUresult cuMemcpyPeerAsync(CUdeviceptr, CUcontext, CUdeviceptr, CUcontext, size_t, CUstream) {
  return CUDA_SUCCESS;
}
CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D*) { return CUDA_SUCCESS; }
CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D*) { return CUDA_SUCCESS; }
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D*, CUstream) { return CUDA_SUCCESS; }
CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D*) { return CUDA_SUCCESS; }
CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D*, CUstream) { return CUDA_SUCCESS; }
CUresult cuMemsetD8_v2(CUdeviceptr, unsigned char, size_t) { return CUDA_SUCCESS; }
CUresult cuMemsetD16_v2(CUdeviceptr, unsigned short, size_t) { return CUDA_SUCCESS; }
CUresult cuMemsetD32_v2(CUdeviceptr, unsigned int, size_t) { return CUDA_SUCCESS; }
CUresult cuMemsetD8Async(CUdeviceptr, unsigned char, size_t, CUstream) { return CUDA_SUCCESS; }
CUresult cuMemsetD16Async(CUdeviceptr, unsigned short, size_t, CUstream) { return CUDA_SUCCESS; }
CUresult cuMemsetD32Async(CUdeviceptr, unsigned int, size_t, CUstream) { return CUDA_SUCCESS; }
CUresult cuMemsetD2D8_v2(CUdeviceptr, size_t, unsigned char, size_t, size_t) {
  return CUDA_SUCCESS;
}
CUresult cuMemsetD2D16_v2(CUdeviceptr, size_t, unsigned short, size_t, size_t) {
  return CUDA_SUCCESS;
}
CUresult cuMemsetD2D32_v2(CUdeviceptr, size_t, unsigned int, size_t, size_t) {
  return CUDA_SUCCESS;
}
CUresult cuMemsetD2D8Async(CUdeviceptr, size_t, unsigned char, size_t, size_t, CUstream) {
  return CUDA_SUCCESS;
}
CUresult cuMemsetD2D16Async(CUdeviceptr, size_t, unsigned short, size_t, size_t, CUstream) {
  return CUDA_SUCCESS;
}
CUresult cuMemsetD2D32Async(CUdeviceptr, size_t, unsigned int, size_t, size_t, CUstream) {
  return CUDA_SUCCESS;
}

}  // extern "C"
