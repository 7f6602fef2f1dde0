// Devices and contexts.
// SPDX-License-Identifier: Apache-2.0
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "support.hpp"

TEST_CASE("devices say what they are, and refuse null") {
  OK(cuInit(0));
  int count = 0;
  OK(cuDeviceGetCount(&count));
  CHECK(count == 2);
  char name[64];
  OK(cuDeviceGetName(name, sizeof name, 1));
  CHECK(std::string(name) == "Software GPU (CPU, for testing)");
  CUuuid first, second;
  OK(cuDeviceGetUuid(&first, 0));
  OK(cuDeviceGetUuid(&second, 1));
  CHECK(std::memcmp(&first, &second, sizeof first) != 0);
  char bus[16];
  OK(cuDeviceGetPCIBusId(bus, sizeof bus, 1));
  CHECK(std::string(bus) == "0000:02:00.0");
  CUdevice device = -1;
  OK(cuDeviceGetByPCIBusId(&device, bus));
  CHECK(device == 1);
  int value = -1;
  OK(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS, 0));
  CHECK(value == 0);
  CHECK(cuDeviceGetAttribute(nullptr, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 0) ==
        CUDA_ERROR_INVALID_VALUE);
  CHECK(cuDeviceGetAttribute(&value, static_cast<CUdevice_attribute>(5000), 0) ==
        CUDA_ERROR_INVALID_VALUE);
  CHECK(cuDeviceGet(&device, 2) == CUDA_ERROR_INVALID_DEVICE);
  CHECK(cuDeviceGetName(nullptr, 10, 0) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("the primary context is counted, reset, and keeps its handle") {
  OK(cuInit(0));
  CUcontext context = nullptr, again = nullptr;
  OK(cuDevicePrimaryCtxRetain(&context, 1));
  OK(cuDevicePrimaryCtxRetain(&again, 1));
  CHECK(context == again);
  unsigned flags = 0;
  int active = 0;
  OK(cuDevicePrimaryCtxRelease(1));
  OK(cuDevicePrimaryCtxGetState(1, &flags, &active));
  CHECK(active == 1);
  OK(cuCtxSetCurrent(context));
  OK(cuDevicePrimaryCtxReset(1));
  OK(cuDevicePrimaryCtxGetState(1, &flags, &active));
  CHECK(active == 0);
  CUdeviceptr p;
  CHECK(cuMemAlloc(&p, 4) == CUDA_ERROR_CONTEXT_IS_DESTROYED);
  OK(cuDevicePrimaryCtxRetain(&again, 1));
  CHECK(context == again);
  OK(cuMemAlloc(&p, 4));
  OK(cuDevicePrimaryCtxReset(1));
  OK(cuCtxSetCurrent(nullptr));
  CHECK(cuMemAlloc(&p, 4) == CUDA_ERROR_INVALID_CONTEXT);
}

TEST_CASE("each thread has its own stack of contexts") {
  OwnContext own;
  std::thread([&] {
    CUcontext current = own.context;
    OK(cuCtxGetCurrent(&current));
    CHECK(current == nullptr);
    OK(cuCtxPushCurrent(own.context));
    OK(cuCtxGetCurrent(&current));
    CHECK(current == own.context);
    OK(cuCtxPopCurrent(&current));
    CHECK(current == own.context);
    CHECK(cuCtxPopCurrent(&current) == CUDA_ERROR_INVALID_CONTEXT);
    CHECK(cuCtxSetCurrent(reinterpret_cast<CUcontext>(0x77)) == CUDA_ERROR_INVALID_CONTEXT);
  }).join();
}

TEST_CASE("peers reach each other's memory once access is enabled") {
  OwnContext second(1);
  CUdeviceptr p;
  OK(cuMemAlloc(&p, 4));
  OwnContext first(0);
  CUfunction f = kernel(load(kKernels), "store");
  OK(cuCtxEnablePeerAccess(second.context, 0));
  CHECK(cuCtxEnablePeerAccess(second.context, 0) == CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
  OK(run_one(f, nullptr, p, 8u));
  CHECK(read<unsigned>(p) == 8);
  OK(cuCtxDisablePeerAccess(second.context));
  OK(run_one(f, nullptr, p, 9u));
  CHECK(cuCtxSynchronize() == CUDA_ERROR_ILLEGAL_ADDRESS);
}

TEST_CASE("a forked child has no driver, and leaves the parent's alone") {
  OwnContext own;
  pid_t child = fork();
  if (child == 0) {
    CUdeviceptr p;
    _exit(cuMemAlloc(&p, 4) == CUDA_ERROR_NOT_INITIALIZED ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CUdeviceptr p;
  OK(cuMemAlloc(&p, 4));
}

TEST_CASE("limits can be set and asked for") {
  OwnContext own;
  size_t value = 0;
  OK(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, 1 << 20));
  OK(cuCtxGetLimit(&value, CU_LIMIT_MALLOC_HEAP_SIZE));
  CHECK(value == 1 << 20);
  CHECK(cuCtxGetLimit(&value, static_cast<CUlimit>(77)) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("what a context held is gone with it, and what came after stays") {
  OwnContext other;
  CUlibrary library;
  CUkernel k;
  CUfunction stale = nullptr;
  CUmodule module = nullptr;
  OK(cuLibraryLoadData(&library, kKernels, nullptr, nullptr, 0, nullptr, nullptr, 0));
  OK(cuLibraryGetKernel(&k, library, "store"));
  {
    OwnContext own;
    module = load(kKernels);
    OK(cuKernelGetFunction(&stale, k));
  }
  CUfunction f;
  CHECK(cuModuleGetFunction(&f, module, "store") == CUDA_ERROR_INVALID_HANDLE);
  CHECK(run_one(stale, nullptr, CUdeviceptr{0}, 0u) == CUDA_ERROR_INVALID_HANDLE);
  // The new module's globals may lie where the old one's did; the library gives back only its own.
  CUmodule fresh = load(kKernels);
  CUdeviceptr counter;
  size_t bytes = 0;
  OK(cuModuleGetGlobal(&counter, &bytes, fresh, "counter"));
  OK(cuLibraryUnload(library));
  CHECK(read<unsigned>(counter) == 41);
}
