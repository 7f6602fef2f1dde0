// The null driver: everything succeeds, nothing is touched, and the books are kept.
// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <cuda.h>
#include <doctest/doctest.h>

#include <string>

#define OK(call) REQUIRE((call) == CUDA_SUCCESS)

TEST_CASE("memory is numbers that differ, and runs out") {
  OK(cuInit(0));
  CUdeviceptr a, b;
  size_t free = 0, total = 0;
  OK(cuMemAlloc(&a, 1000));
  OK(cuMemAlloc(&b, 1000));
  CHECK(b >= a + 1000);
  OK(cuMemGetInfo(&free, &total));
  CHECK(total - free == 2000);
  CHECK(cuMemAlloc(&b, total) == CUDA_ERROR_OUT_OF_MEMORY);
  OK(cuMemFree(a));
  CHECK(cuMemFree(a) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("copies and launches touch nothing") {
  int untouched = 17;
  OK(cuMemcpyDtoH(&untouched, 0x1000, 4));
  OK(cuMemcpyHtoD(0x1000, nullptr, 1 << 30));
  OK(cuStreamWriteValue32(nullptr, reinterpret_cast<CUdeviceptr>(&untouched), 1, 0));
  OK(cuLaunchKernel(nullptr, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
  CHECK(untouched == 17);
}

TEST_CASE("words in pinned memory are written at once, and waits are over at once") {
  unsigned* word = nullptr;
  OK(cuMemHostAlloc(reinterpret_cast<void**>(&word), 64, 0));
  auto address = reinterpret_cast<CUdeviceptr>(word);
  OK(cuStreamWaitValue32(nullptr, address, 99, CU_STREAM_WAIT_VALUE_EQ));
  OK(cuStreamWriteValue32(nullptr, address, 5, 0));
  CHECK(*word == 5);
  OK(cuMemFreeHost(word));
}

TEST_CASE("an address range is reserved where it is asked for") {
  CUdeviceptr base = 0;
#if defined(__SANITIZE_THREAD__)  // leaves little room, and a terabyte in none of it
  constexpr CUdeviceptr kHint = 0x20'0000'0000;
  constexpr size_t kBytes = size_t{1} << 36;
#else
  constexpr CUdeviceptr kHint = 0x2100'0000'0000;
  constexpr size_t kBytes = size_t{1} << 40;
#endif
  OK(cuMemAddressReserve(&base, kBytes, 0, kHint, 0));
  CHECK(base == kHint);
  OK(cuMemAddressFree(base, kBytes));
  CHECK(cuMemAddressFree(base, kBytes) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("any bytes are a module; the layout of PTX kernels is read") {
  CUmodule module;
  CUfunction f;
  size_t offset = 0, bytes = 0;
  OK(cuModuleLoadData(&module, "\x50\xed\x55\xba rubbish"));
  OK(cuModuleGetFunction(&f, module, "anything"));
  CHECK(cuFuncGetParamInfo(f, 0, &offset, &bytes) == CUDA_ERROR_INVALID_VALUE);
  OK(cuModuleLoadData(&module,
                      ".version 7.0\n.visible .entry k(\n .param .u32 a,\n .param .u64 b,\n"
                      " .param .align 8 .b8 c[24]\n)\n{ ret; }\n"));
  OK(cuModuleGetFunction(&f, module, "k"));
  OK(cuFuncGetParamInfo(f, 1, &offset, &bytes));
  CHECK(offset == 8);
  CHECK(bytes == 8);
  OK(cuFuncGetParamInfo(f, 2, &offset, &bytes));
  CHECK(offset == 16);
  CHECK(bytes == 24);
}
