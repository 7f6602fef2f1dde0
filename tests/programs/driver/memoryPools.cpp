// Memory pools and stream-ordered memory: made, bounded, counted, current, destroyed with memory
// still in use.
// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"

namespace {

uint64_t number(CUmemoryPool pool, CUmemPool_attribute which) {
  cuuint64_t value = 0;
  CHECK(cuMemPoolGetAttribute(pool, which, &value));
  return value;
}

CUmemoryPool make(const Device& device, size_t max_bytes) {
  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.location.id = device.device();
  properties.maxSize = max_bytes;
  CUmemoryPool pool = nullptr;
  CHECK(cuMemPoolCreate(&pool, &properties));
  return pool;
}

void ordered_memory(Program& program, const Device& device, CUstream stream) {
  constexpr int kCount = 10000;
  CUdeviceptr first = 0;
  CUdeviceptr second = 0;
  CHECK(cuMemAllocAsync(&first, kCount * sizeof(int), stream));
  CHECK(cuMemsetD32Async(first, 3, kCount, stream));
  device.launch_step(first, kCount, 5, stream);
  CHECK(cuMemAllocAsync(&second, kCount * sizeof(int), stream));
  CHECK(cuMemcpyDtoDAsync(second, first, kCount * sizeof(int), stream));
  CHECK(cuMemFreeAsync(first, stream));
  device.launch_step(second, kCount, 2, stream);
  std::vector<int> values(kCount);
  CHECK(cuMemcpyDtoHAsync(values.data(), second, kCount * sizeof(int), stream));
  CHECK(cuMemFreeAsync(second, stream));
  CHECK(cuStreamSynchronize(stream));
  program.expect(values == std::vector<int>(kCount, 33), "memory lives in the stream's order");
  program.save(values);
  // More in all than there is at once, were it not given back.
  size_t free_bytes = 0;
  size_t total = 0;
  CHECK(cuMemGetInfo(&free_bytes, &total));
  const size_t large = total / 4;
  for (int round = 0; round < 12; ++round) {
    CUdeviceptr memory = 0;
    CHECK(cuMemAllocAsync(&memory, large, stream));
    CHECK(cuMemsetD8Async(memory, 1, 4096, stream));
    CHECK(cuMemFreeAsync(memory, stream));
  }
  CHECK(cuStreamSynchronize(stream));
}

void counts(Program& program, const Device& device, CUstream stream) {
  constexpr uint64_t kBytes = 4 << 20;
  const CUmemoryPool pool = make(device, 0);
  CUdeviceptr memory[2] = {};
  CHECK(cuMemAllocFromPoolAsync(&memory[0], kBytes, pool, stream));
  CHECK(cuMemAllocFromPoolAsync(&memory[1], kBytes, pool, stream));
  program.expect(number(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT) == 2 * kBytes,
                 "a pool counts what is used of it");
  CUmemoryPool told = nullptr;
  CHECK(cuPointerGetAttribute(&told, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, memory[1] + 100));
  program.expect(told == pool, "memory tells its pool");
  CHECK(cuMemFreeAsync(memory[0], stream));
  CHECK(cuStreamSynchronize(stream));
  CHECK(cuMemPoolTrimTo(pool, 0));
  program.expect(number(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT) == kBytes &&
                     number(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH) == 2 * kBytes,
                 "a pool knows the most that it ever had");
  cuuint64_t zero = 0;
  CHECK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &zero));
  program.expect(number(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH) == kBytes, "and forgets it when told");
  cuuint64_t threshold = 1 << 30;
  CHECK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
  program.expect(number(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) == threshold,
                 "a pool keeps its threshold");
  int reuse = 0;
  CHECK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC, &reuse));
  reuse = 7;
  CHECK(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC, &reuse));
  program.expect(reuse == 0, "a pool keeps its switches");

  // It goes, its memory stays until it is freed.
  CHECK(cuMemPoolDestroy(pool));
  device.launch_step(memory[1], 1000, 1, stream);
  CHECK(cuStreamSynchronize(stream));
  program.expect(cuMemPoolTrimTo(pool, 0) == CUDA_ERROR_INVALID_VALUE, "a destroyed pool is none");
  CHECK(cuMemFree(memory[1]));
}

void bounds(Program& program, const Device& device, CUstream stream) {
  constexpr size_t kBytes = 32 << 20;
  const CUmemoryPool pool = make(device, kBytes);
  CUdeviceptr first = 0;
  CUdeviceptr second = 0;
  CHECK(cuMemAllocFromPoolAsync(&first, kBytes, pool, stream));
  program.expect(cuMemAllocFromPoolAsync(&second, kBytes, pool, stream) == CUDA_ERROR_OUT_OF_MEMORY,
                 "a pool holds no more than it may");
  CHECK(cuMemFreeAsync(first, stream));
  CHECK(cuStreamSynchronize(stream));
  CHECK(cuMemAllocFromPoolAsync(&second, kBytes, pool, stream));
  CHECK(cuMemFreeAsync(second, stream));
  CHECK(cuStreamSynchronize(stream));
  CHECK(cuMemPoolDestroy(pool));
}

void current_pool(Program& program, const Device& device, CUstream stream) {
  CUmemLocation location{};
  location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  location.id = device.device();
  const CUmemoryPool pool = make(device, 0);
  CUmemoryPool by_default = nullptr;
  CUmemoryPool told = nullptr;
  CHECK(cuDeviceGetDefaultMemPool(&by_default, device.device()));
  CHECK(cuDeviceGetMemPool(&told, device.device()));
  program.expect(told == by_default, "the default pool is the current one at first");
  CHECK(cuDeviceSetMemPool(device.device(), pool));
  CHECK(cuMemGetMemPool(&told, &location, CU_MEM_ALLOCATION_TYPE_PINNED));
  program.expect(told == pool, "a program's pool becomes the current one");
  CHECK(cuMemGetDefaultMemPool(&told, &location, CU_MEM_ALLOCATION_TYPE_PINNED));
  program.expect(told == by_default, "the default pool stays what it is");
  CUdeviceptr memory = 0;
  CHECK(cuMemAllocAsync(&memory, 5000, stream));
  program.expect(number(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT) >= 5000,
                 "what names no pool comes from the current one");
  CHECK(cuMemFreeAsync(memory, stream));
  CHECK(cuStreamSynchronize(stream));
  CHECK(cuMemSetMemPool(&location, CU_MEM_ALLOCATION_TYPE_PINNED, by_default));
  CHECK(cuDeviceSetMemPool(device.device(), pool));
  CHECK(cuMemPoolDestroy(pool));
  CHECK(cuDeviceGetMemPool(&told, device.device()));
  program.expect(told == by_default, "the default pool takes over from a destroyed one");
  program.expect(cuMemPoolDestroy(by_default) == CUDA_ERROR_INVALID_VALUE,
                 "the default pool is not destroyed");

  CUmemAccessDesc access{};
  access.location = location;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  CUmemAccess_flags flags = CU_MEM_ACCESS_FLAGS_PROT_NONE;
  CHECK(cuMemPoolSetAccess(by_default, &access, 1));
  CHECK(cuMemPoolGetAccess(&flags, by_default, &location));
  program.expect(flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE, "a device reaches its own pool");
}

}  // namespace

int main(int argc, char** argv) {
  Program program("memoryPools", argc, argv);
  const Device device;
  CUstream stream;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  ordered_memory(program, device, stream);
  counts(program, device, stream);
  bounds(program, device, stream);
  current_pool(program, device, stream);
  CHECK(cuStreamDestroy(stream));
  return program.finish();
}
