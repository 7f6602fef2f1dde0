// Kernels: parameters, order, limits, and what happens when one goes wrong.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>

#include "support.hpp"

TEST_CASE("vectorAdd from PTX text adds") {
  OwnContext own;
  CUmodule module = load(kKernels);
  constexpr unsigned kCount = 1000;
  std::vector<float> a(kCount), b(kCount), c(kCount);
  std::iota(a.begin(), a.end(), 0.0f);
  std::iota(b.begin(), b.end(), 5.0f);
  CUdeviceptr da, db, dc;
  OK(cuMemAlloc(&da, kCount * 4));
  OK(cuMemAlloc(&db, kCount * 4));
  OK(cuMemAlloc(&dc, kCount * 4));
  OK(cuMemcpyHtoD(da, a.data(), kCount * 4));
  OK(cuMemcpyHtoD(db, b.data(), kCount * 4));
  unsigned count = kCount;
  CUfunction f = kernel(module, "vadd");

  SUBCASE("with an array of parameters") {
    void* parameters[] = {&da, &db, &dc, &count};
    OK(cuLaunchKernel(f, 8, 1, 1, 128, 1, 1, 0, nullptr, parameters, nullptr));
  }
  SUBCASE("with packed parameters") {
    struct {
      CUdeviceptr a, b, c;
      unsigned n;
    } packed{da, db, dc, count};
    size_t bytes = sizeof packed;
    void* extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes,
                     CU_LAUNCH_PARAM_END};
    OK(cuLaunchKernel(f, 8, 1, 1, 128, 1, 1, 0, nullptr, nullptr, extra));
  }
  SUBCASE("as a library's kernel, passed as a function") {
    CUlibrary library;
    CUkernel k;
    OK(cuLibraryLoadData(&library, kKernels, nullptr, nullptr, 0, nullptr, nullptr, 0));
    OK(cuLibraryGetKernel(&k, library, "vadd"));
    void* parameters[] = {&da, &db, &dc, &count};
    CUlaunchConfig launch{8, 1, 1, 128, 1, 1, 0, nullptr, nullptr, 0};
    OK(cuLaunchKernelEx(&launch, reinterpret_cast<CUfunction>(k), parameters, nullptr));
    OK(cuLibraryUnload(library));
  }
  OK(cuMemcpyDtoH(c.data(), dc, kCount * 4));
  for (unsigned i = 0; i < kCount; ++i) REQUIRE(c[i] == a[i] + b[i]);
}

TEST_CASE("a kernel's layout is told by index") {
  OwnContext own;
  CUfunction f = kernel(load(kKernels), "vadd");
  size_t offset = 0, bytes = 0;
  OK(cuFuncGetParamInfo(f, 2, &offset, &bytes));
  CHECK(offset == 16);
  CHECK(bytes == 8);
  OK(cuFuncGetParamInfo(f, 3, &offset, &bytes));
  CHECK(offset == 24);
  CHECK(bytes == 4);
  CHECK(cuFuncGetParamInfo(f, 4, &offset, &bytes) == CUDA_ERROR_INVALID_VALUE);
  const char* name = nullptr;
  OK(cuFuncGetName(&name, f));
  CHECK(std::string(name) == "vadd");
}

TEST_CASE("all kernels of a module and library are listed") {
  OwnContext own;
  CUmodule module = load(kKernels);
  unsigned count = 0;
  OK(cuModuleGetFunctionCount(&count, module));
  CHECK(count == 4);
  std::vector<CUfunction> functions(count);
  OK(cuModuleEnumerateFunctions(functions.data(), count, module));
  const char* name = nullptr;
  OK(cuFuncGetName(&name, functions[0]));
  CHECK(std::string(name) == "vadd");
  CUlibrary library;
  OK(cuLibraryLoadData(&library, kKernels, nullptr, nullptr, 0, nullptr, nullptr, 0));
  OK(cuLibraryGetKernelCount(&count, library));
  CHECK(count == 4);
  std::vector<CUkernel> kernels(count);
  OK(cuLibraryEnumerateKernels(kernels.data(), count, library));
  size_t offset = 0, bytes = 0;
  OK(cuKernelGetParamInfo(kernels[0], 3, &offset, &bytes));
  CHECK(bytes == 4);
}

TEST_CASE("a refused launch leaves the context usable") {
  OwnContext own;
  CUfunction f = kernel(load(kKernels), "store");
  CUdeviceptr p;
  OK(cuMemAlloc(&p, 4));
  unsigned value = 7;
  void* parameters[] = {&p, &value};
  CHECK(cuLaunchKernel(f, 1, 1, 1, 2048, 1, 1, 0, nullptr, parameters, nullptr) ==
        CUDA_ERROR_INVALID_VALUE);
  CHECK(cuLaunchKernel(f, 0, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr) ==
        CUDA_ERROR_INVALID_VALUE);
  CHECK(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 100 << 10, nullptr, parameters, nullptr) ==
        CUDA_ERROR_INVALID_VALUE);
  CHECK(cuLaunchKernel(reinterpret_cast<CUfunction>(0x1234), 1, 1, 1, 1, 1, 1, 0, nullptr,
                       parameters, nullptr) == CUDA_ERROR_INVALID_HANDLE);
  OK(run_one(f, nullptr, p, value));
  CHECK(read<unsigned>(p) == 7);
}

TEST_CASE("a wild store kills its context with 700, and only that one") {
  OwnContext healthy;
  CUmodule module = load(kKernels);
  CUdeviceptr p;
  OK(cuMemAlloc(&p, 4));
  {
    OwnContext victim;
    CUfunction f = kernel(load(kKernels), "store");
    CUdeviceptr wild = 0x123456789000;
    OK(run_one(f, nullptr, wild, 1u));
    CHECK(cuCtxSynchronize() == CUDA_ERROR_ILLEGAL_ADDRESS);
    CUdeviceptr q;
    CHECK(cuMemAlloc(&q, 4) == CUDA_ERROR_ILLEGAL_ADDRESS);
    CHECK(run_one(f, nullptr, wild, 1u) == CUDA_ERROR_ILLEGAL_ADDRESS);
  }
  CUcontext current = nullptr;
  OK(cuCtxGetCurrent(&current));
  CHECK(current == healthy.context);
  OK(run_one(kernel(module, "store"), nullptr, p, 3u));
  CHECK(read<unsigned>(p) == 3);
}

TEST_CASE("a store to freed memory is caught") {
  OwnContext own;
  CUfunction f = kernel(load(kKernels), "store");
  CUdeviceptr p;
  OK(cuMemAlloc(&p, 64 << 20));
  OK(cuMemFree(p));
  OK(run_one(f, nullptr, p, 1u));
  CHECK(cuCtxSynchronize() == CUDA_ERROR_ILLEGAL_ADDRESS);
}

TEST_CASE("module globals have their initial value, an address and a size") {
  OwnContext own;
  CUmodule module = load(kKernels);
  CUdeviceptr counter;
  size_t bytes = 0;
  OK(cuModuleGetGlobal(&counter, &bytes, module, "counter"));
  CHECK(bytes == 4);
  CHECK(read<unsigned>(counter) == 41);
  OK(run_one(kernel(module, "increment"), nullptr, counter));
  CHECK(read<unsigned>(counter) == 42);
  CHECK(cuModuleGetGlobal(&counter, &bytes, module, "nobody") == CUDA_ERROR_NOT_FOUND);
  OK(cuModuleUnload(module));
  CUfunction f;
  CHECK(cuModuleGetFunction(&f, module, "store") == CUDA_ERROR_INVALID_HANDLE);
}

TEST_CASE("occupancy and function attributes are those of a device of this size") {
  OwnContext own;
  CUfunction f = kernel(load(kKernels), "store");
  int blocks = 0, grid = 0, block = 0, value = 0;
  OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, f, 256, 0));
  CHECK(blocks == 8);
  OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, f, 32, 0));
  CHECK(blocks == 32);
  OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, f, 64, 40 << 10));
  CHECK(blocks == 4);
  OK(cuOccupancyMaxPotentialBlockSize(&grid, &block, f, nullptr, 0, 0));
  CHECK(block == 1024);
  CHECK(grid == 16);
  OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_PTX_VERSION, f));
  CHECK(value == 70);
  OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_BINARY_VERSION, f));
  CHECK(value == 80);
  OK(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 100 << 10));
  CHECK(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 200 << 10) ==
        CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("a cooperative launch that cannot be resident is refused") {
  OwnContext own;
  CUfunction f = kernel(load(kKernels), "increment");
  CUdeviceptr p;
  OK(cuMemAlloc(&p, 4));
  void* parameters[] = {&p};
  CHECK(cuLaunchCooperativeKernel(f, 10000, 1, 1, 1024, 1, 1, 0, nullptr, parameters) ==
        CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
}
