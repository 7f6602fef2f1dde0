// Functions by the names that programs built for older toolkits have in them.
// SPDX-License-Identifier: Apache-2.0
#define __CUDA_API_VERSION_INTERNAL  // every name means itself
#include <cuda.h>

#include <array>
#include <cstdio>

#include "../program.hpp"

#define CHECK(call) check((call), #call)

namespace {

void check(CUresult result, const char* call) {
  if (result == CUDA_SUCCESS) return;
  std::fprintf(stderr, "%s: %d\n", call, static_cast<int>(result));
  std::exit(1);
}

void contexts(Program& program, CUdevice device) {
  CUuuid uuid{};
  CHECK(cuDeviceGetUuid(&uuid, device));
  program.save(&uuid, sizeof uuid);
  CHECK(cuDevicePrimaryCtxSetFlags(device, CU_CTX_SCHED_SPIN));
  CUcontext context = nullptr;
  CUcontext current = nullptr;
  CHECK(cuCtxCreate(&context, 0, device));
  CHECK(cuCtxPopCurrent(&current));
  program.expect(current == context, "a new context is the current one");
  CHECK(cuCtxPushCurrent(context));
  CUdevice told = -1;
  CHECK(cuCtxGetDevice(&told));
  program.expect(told == device, "a context knows its device");
  CHECK(cuCtxDestroy(context));
}

void events() {
  CUevent events[2];
  for (CUevent& event : events) {
    CHECK(cuEventCreate(&event, 0));
    CHECK(cuEventRecord(event, nullptr));
    CHECK(cuEventSynchronize(event));
  }
  float milliseconds = -1;
  CHECK(cuEventElapsedTime(&milliseconds, events[0], events[1]));
  for (CUevent event : events) CHECK(cuEventDestroy(event));
}

void batches(Program& program) {
  CUstream stream = nullptr;
  CUdeviceptr memory = 0;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CHECK(cuMemAlloc_v2(&memory, 10000));
  std::vector<uint8_t> bytes(4000);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 3);
  CHECK(cuMemHostRegister(bytes.data(), bytes.size(), 0));
  CUmemcpyAttributes order{};
  order.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
  size_t index = 0;
  size_t failed = 0;
  std::array<CUdeviceptr, 1> to{memory};
  std::array<CUdeviceptr, 1> from{reinterpret_cast<CUdeviceptr>(bytes.data())};
  std::array<size_t, 1> sizes{bytes.size()};
  CHECK(cuMemcpyBatchAsync(to.data(), from.data(), sizes.data(), 1, &order, &index, 1, &failed,
                           stream));
  CUDA_MEMCPY3D_BATCH_OP operation{};
  operation.src.type = operation.dst.type = CU_MEMCPY_OPERAND_TYPE_POINTER;
  operation.src.op.ptr.ptr = memory;
  operation.dst.op.ptr.ptr = memory + 5000;
  operation.extent = {1000, 4, 1};
  operation.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
  CHECK(cuMemcpy3DBatchAsync(1, &operation, &failed, 0, stream));
  CHECK(cuStreamSynchronize(stream));
  std::vector<uint8_t> back(bytes.size());
  CHECK(cuMemcpyDtoH_v2(back.data(), memory + 5000, back.size()));
  program.expect(back == bytes, "batches of copies arrive");
  program.save(back);
  CHECK(cuMemHostUnregister(bytes.data()));
  CHECK(cuMemFree_v2(memory));
  CHECK(cuStreamDestroy_v2(stream));
}

// A driver of today has the interface with 32-bit sizes and addresses for contexts that were made
// through it, and so for none.
void narrow(Program& program, CUdevice device) {
  unsigned total = 0, bytes = 0, more = 0;
  CHECK(cuDeviceTotalMem(&total, device));
  size_t wide = 0;
  CHECK(cuDeviceTotalMem_v2(&wide, device));
  program.expect(total == (wide > UINT32_MAX ? UINT32_MAX : wide), "32 bits of the memory");
  program.expect(cuDeviceTotalMem(nullptr, device) == CUDA_ERROR_INVALID_VALUE &&
                     cuDeviceTotalMem(&total, 99) == CUDA_ERROR_INVALID_DEVICE,
                 "32 bits of nothing");
  CUdeviceptr_v1 at = 0;
  CUarray array = nullptr;
  CUmodule module = nullptr;
  char host[64] = {};
  void* pinned = nullptr;
  CUDA_ARRAY_DESCRIPTOR_v1 plane{8, 4, CU_AD_FORMAT_FLOAT, 1};
  CUDA_ARRAY3D_DESCRIPTOR_v1 volume{8, 4, 2, CU_AD_FORMAT_FLOAT, 1, 0};
  CUDA_MEMCPY2D_v1 rows{};
  CUDA_MEMCPY3D_v1 slices{};
  const CUresult answers[] = {cuMemAlloc(&at, 64),
                              cuMemAllocPitch(&at, &bytes, 64, 4, 4),
                              cuMemFree(at),
                              cuMemAllocHost(&pinned, 64),
                              cuMemGetInfo(&bytes, &more),
                              cuMemGetAddressRange(&at, &bytes, at),
                              cuMemcpyHtoD(at, host, 4),
                              cuMemcpyHtoDAsync(at, host, 4, nullptr),
                              cuMemcpyDtoH(host, at, 4),
                              cuMemcpyDtoHAsync(host, at, 4, nullptr),
                              cuMemcpyDtoD(at, at, 4),
                              cuMemcpyDtoDAsync(at, at, 4, nullptr),
                              cuMemcpy2D(&rows),
                              cuMemcpy2DUnaligned(&rows),
                              cuMemcpy2DAsync(&rows, nullptr),
                              cuMemcpy3D(&slices),
                              cuMemcpy3DAsync(&slices, nullptr),
                              cuMemsetD8(at, 1, 4),
                              cuMemsetD16(at, 1, 4),
                              cuMemsetD32(at, 1, 4),
                              cuMemsetD2D8(at, 4, 1, 1, 1),
                              cuMemsetD2D16(at, 4, 1, 1, 1),
                              cuMemsetD2D32(at, 4, 1, 1, 1),
                              cuArrayCreate(&array, &plane),
                              cuArray3DCreate(&array, &volume)};
  program.expect(cuModuleGetGlobal(&at, &bytes, module, "name") == CUDA_ERROR_INVALID_HANDLE,
                 "nor has it modules");
  // Of these it is not known which error a driver gives.
  const CUresult others[] = {cuMemHostGetDevicePointer(&at, host, 0),
                             cuMemcpyHtoA(array, 0, host, 4),
                             cuMemcpyHtoAAsync(array, 0, host, 4, nullptr),
                             cuMemcpyAtoH(host, array, 0, 4),
                             cuMemcpyAtoHAsync(host, array, 0, 4, nullptr),
                             cuMemcpyDtoA(array, 0, at, 4),
                             cuMemcpyAtoD(at, array, 0, 4),
                             cuMemcpyAtoA(array, 0, array, 0, 4),
                             cuArrayGetDescriptor(&plane, array),
                             cuArray3DGetDescriptor(&volume, array)};
  for (const CUresult answer : others) {
    program.expect(answer != CUDA_SUCCESS, "the 32-bit interface has no context");
  }
  for (size_t i = 0; i < std::size(answers); ++i) {
    const bool refused = answers[i] == CUDA_ERROR_INVALID_CONTEXT;
    program.expect(refused, "the 32-bit interface has no context");
    if (!refused) std::fprintf(stderr, "call %zu answers %d\n", i, static_cast<int>(answers[i]));
  }
}

// What only other systems, or other devices, have.
void elsewhere(Program& program, CUdevice device) {
  char luid[8] = {};
  unsigned mask = 0;
  program.expect(cuDeviceGetLuid(luid, &mask, device) == CUDA_ERROR_NOT_SUPPORTED &&
                     cuDeviceGetLuid(nullptr, nullptr, device) == CUDA_ERROR_INVALID_VALUE &&
                     cuDeviceGetLuid(luid, &mask, 99) == CUDA_ERROR_INVALID_DEVICE,
                 "Windows alone has such numbers");
  int reachable = -1, descriptor = -1;
  CHECK(cuDeviceGetAttribute(&reachable, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED, device));
  if (reachable == 0) {
    program.expect(
        cuMemGetHandleForAddressRange(&descriptor, 0, 65536, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD,
                                      0) == CUDA_ERROR_NOT_SUPPORTED,
        "memory that peripherals cannot reach has no handle for them");
  }
  int flushes = -1;
  CHECK(cuDeviceGetAttribute(&flushes, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS,
                             device));
  if (flushes == 0) {
    program.expect(cuFlushGPUDirectRDMAWrites(CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX,
                                              CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER) ==
                       CUDA_ERROR_NOT_SUPPORTED,
                   "nothing of theirs is to be flushed");
  }
  int algorithms = -1;
  CHECK(
      cuDeviceGetAttribute(&algorithms, CU_DEVICE_ATTRIBUTE_MEM_DECOMPRESS_ALGORITHM_MASK, device));
  CUmemDecompressParams what{};
  size_t index = 0;
  if (algorithms == 0) {
    program.expect(
        cuMemBatchDecompressAsync(&what, 1, 0, &index, nullptr) == CUDA_ERROR_NOT_SUPPORTED,
        "a device that names no algorithm decompresses nothing");
  }
}

}  // namespace

int main(int argc, char** argv) {
  Program program("olderNames", argc, argv);
  CUdevice device = 0;
  CUcontext primary = nullptr;
  CHECK(cuInit(0));
  CHECK(cuDeviceGet(&device, 0));
  contexts(program, device);
  CHECK(cuDevicePrimaryCtxRetain(&primary, device));
  CHECK(cuCtxSetCurrent(primary));
  events();
  batches(program);
  narrow(program, device);
  elsewhere(program, device);
  CHECK(cuDevicePrimaryCtxRelease(device));
  CHECK(cuDevicePrimaryCtxReset(device));
  return program.finish();
}
