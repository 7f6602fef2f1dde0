// Allocation, copies, memsets, pools, and what is told about addresses.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <numeric>

#include "support.hpp"

TEST_CASE("memory is counted, runs out, and comes back") {
  OwnContext own;
  size_t before = 0, total = 0, now = 0;
  OK(cuMemGetInfo(&before, &total));
  CHECK(total == 1024u << 20);
  CUdeviceptr p, q;
  OK(cuMemAlloc(&p, 512 << 20));
  CHECK(cuMemAlloc(&q, 800 << 20) == CUDA_ERROR_OUT_OF_MEMORY);
  OK(cuMemGetInfo(&now, &total));
  CHECK(before - now == 512u << 20);
  OK(cuMemFree(p));
  OK(cuMemGetInfo(&now, &total));
  CHECK(now == before);
  CHECK(cuMemAlloc(&p, 0) == CUDA_ERROR_INVALID_VALUE);
  CHECK(cuMemAlloc(&p, ~size_t{0}) == CUDA_ERROR_OUT_OF_MEMORY);
  CHECK(cuMemFree(0x1234) == CUDA_ERROR_INVALID_VALUE);
  OK(cuMemFree(0));
}

TEST_CASE("small allocations share granules and keep apart") {
  OwnContext own;
  std::vector<CUdeviceptr> blocks(1000);
  for (size_t i = 0; i < blocks.size(); ++i) {
    OK(cuMemAlloc(&blocks[i], 100));
    CHECK(blocks[i] % 256 == 0);
    OK(cuMemsetD8(blocks[i], static_cast<unsigned char>(i), 100));
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    CHECK(read<unsigned char>(blocks[i] + 99) == static_cast<unsigned char>(i));
  }
  for (CUdeviceptr p : blocks) OK(cuMemFree(p));
}

TEST_CASE("a context takes its memory along when it is destroyed") {
  OwnContext outer;
  size_t before = 0, after = 0, total = 0;
  OK(cuMemGetInfo(&before, &total));
  {
    OwnContext inner;
    CUdeviceptr p;
    OK(cuMemAlloc(&p, 100 << 20));
  }
  OK(cuMemGetInfo(&after, &total));
  CHECK(before == after);
}

TEST_CASE("copies of two and three dimensions move what they name") {
  OwnContext own;
  std::vector<uint8_t> from(64 * 10), to(64 * 10, 0);
  std::iota(from.begin(), from.end(), 0);
  CUdeviceptr p;
  size_t pitch = 0;
  OK(cuMemAllocPitch(&p, &pitch, 64, 10, 4));
  CHECK(pitch == 512);
  CUDA_MEMCPY2D in{};
  in.srcMemoryType = CU_MEMORYTYPE_HOST;
  in.srcHost = from.data();
  in.srcPitch = 64;
  in.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  in.dstDevice = p;
  in.dstPitch = pitch;
  in.WidthInBytes = 64;
  in.Height = 10;
  OK(cuMemcpy2D(&in));
  CHECK(read<uint8_t>(p + 3 * pitch + 5) == from[3 * 64 + 5]);
  CUDA_MEMCPY3D out{};
  out.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  out.srcDevice = p;
  out.srcPitch = pitch;
  out.srcHeight = 5;
  out.srcXInBytes = 8;
  out.srcY = 1;
  out.dstMemoryType = CU_MEMORYTYPE_HOST;
  out.dstHost = to.data();
  out.dstPitch = 16;
  out.dstHeight = 3;
  out.WidthInBytes = 16;
  out.Height = 3;
  out.Depth = 2;
  OK(cuMemcpy3D(&out));
  for (int z = 0; z < 2; ++z) {
    for (int y = 0; y < 3; ++y) {
      CHECK(std::memcmp(&to[(z * 3 + y) * 16], &from[(z * 5 + y + 1) * 64 + 8], 16) == 0);
    }
  }
  in.Height = 1000;
  CHECK(cuMemcpy2D(&in) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("a pageable source may be reused as soon as the call returns") {
  OwnContext own;
  uint32_t* gate = nullptr;
  OK(cuMemHostAlloc(reinterpret_cast<void**>(&gate), 64, 0));
  *gate = 0;
  CUstream stream;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CUdeviceptr p;
  OK(cuMemAlloc(&p, 4));
  OK(cuStreamWaitValue32(stream, reinterpret_cast<CUdeviceptr>(gate), 1, 0));
  uint32_t value = 17;
  OK(cuMemcpyHtoDAsync(p, &value, 4, stream));
  value = 0;
  __atomic_store_n(gate, 1u, __ATOMIC_RELEASE);
  OK(cuStreamSynchronize(stream));
  CHECK(read<uint32_t>(p) == 17);
}

TEST_CASE("memsets of all widths, also of two dimensions") {
  OwnContext own;
  CUdeviceptr p;
  OK(cuMemAlloc(&p, 4096));
  OK(cuMemsetD32(p, 0xdeadbeef, 1024));
  CHECK(read<uint32_t>(p + 4092) == 0xdeadbeef);
  OK(cuMemsetD16(p, 0x1234, 2));
  CHECK(read<uint32_t>(p) == 0x12341234);
  OK(cuMemsetD2D8(p, 64, 0xff, 8, 4));
  CHECK(read<uint8_t>(p + 3 * 64 + 7) == 0xff);
  CHECK(read<uint8_t>(p + 3 * 64 + 8) == 0xef);
  CHECK(cuMemsetD32(p, 0, 1 << 30) == CUDA_ERROR_INVALID_VALUE);
  CHECK(cuMemsetD32(p + 2, 0, 1) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("pools count, obey their limit, and free in stream order") {
  OwnContext own;
  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.maxSize = 64 << 20;
  CUmemoryPool pool;
  OK(cuMemPoolCreate(&pool, &properties));
  CUstream stream;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CUdeviceptr p, q;
  OK(cuMemAllocFromPoolAsync(&p, 40 << 20, pool, stream));
  CHECK(cuMemAllocFromPoolAsync(&q, 40 << 20, pool, stream) == CUDA_ERROR_OUT_OF_MEMORY);
  cuuint64_t used = 0;
  OK(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used));
  CHECK(used == 40u << 20);
  OK(cuMemFreeAsync(p, stream));
  OK(cuStreamSynchronize(stream));
  OK(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used));
  CHECK(used == 0);
  OK(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &used));
  CHECK(used == 40u << 20);
  OK(cuDeviceSetMemPool(0, pool));
  OK(cuMemAllocAsync(&p, 1024, stream));
  CUmemoryPool of_pointer = nullptr;
  OK(cuPointerGetAttribute(&of_pointer, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, p));
  CHECK(of_pointer == pool);
  OK(cuMemFreeAsync(p, stream));
  OK(cuMemPoolDestroy(pool));
  CUmemoryPool standard = nullptr, current = nullptr;
  OK(cuDeviceGetDefaultMemPool(&standard, 0));
  OK(cuDeviceGetMemPool(&current, 0));
  CHECK(standard == current);
}

TEST_CASE("what lies at an address is told") {
  OwnContext own;
  CUdeviceptr p, base;
  size_t bytes = 0;
  OK(cuMemAlloc(&p, 1000));
  OK(cuMemGetAddressRange(&base, &bytes, p + 10));
  CHECK(base == p);
  CHECK(bytes == 1000);
  CHECK(cuMemGetAddressRange(&base, &bytes, 0x1000) == CUDA_ERROR_NOT_FOUND);
  unsigned type = 0;
  OK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p));
  CHECK(type == CU_MEMORYTYPE_DEVICE);
  int local = 0;
  CHECK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                              reinterpret_cast<CUdeviceptr>(&local)) == CUDA_ERROR_INVALID_VALUE);
  CUpointer_attribute wanted[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                  CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
  int ordinal = 0;
  void* out[] = {&type, &ordinal};
  OK(cuPointerGetAttributes(2, wanted, out, reinterpret_cast<CUdeviceptr>(&local)));
  CHECK(type == 0);
  CHECK(ordinal == -2);
}

TEST_CASE("host memory can be registered once, and used by kernels until it is not") {
  OwnContext own;
  std::vector<uint32_t> memory(1024, 0);
  CUfunction f = kernel(load(kKernels), "store");
  OK(cuMemHostRegister(memory.data(), 4096, CU_MEMHOSTREGISTER_DEVICEMAP));
  CHECK(cuMemHostRegister(memory.data() + 1, 4, 0) == CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
  CUdeviceptr p;
  OK(cuMemHostGetDevicePointer(&p, memory.data() + 3, 0));
  OK(run_one(f, nullptr, p, 5u));
  OK(cuCtxSynchronize());
  CHECK(memory[3] == 5);
  unsigned flags = 0;
  OK(cuMemHostGetFlags(&flags, memory.data()));
  CHECK((flags & CU_MEMHOSTREGISTER_DEVICEMAP) != 0);
  OK(cuMemHostUnregister(memory.data()));
  CHECK(cuMemHostUnregister(memory.data()) == CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
  OK(run_one(f, nullptr, p, 6u));
  CHECK(cuCtxSynchronize() == CUDA_ERROR_ILLEGAL_ADDRESS);
  CHECK(memory[3] == 5);
}
