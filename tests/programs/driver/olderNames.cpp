// Functions by the names that programs built for older toolkits have in them.
// SPDX-License-Identifier: Apache-2.0
#define __CUDA_API_VERSION_INTERNAL  // every name means itself
#include <cuda.h>

#include <array>

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
  CHECK(cuDevicePrimaryCtxRelease(device));
  CHECK(cuDevicePrimaryCtxReset(device));
  return program.finish();
}
