// How entry points are found, and what those answer that are not there.
// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>

#include "support.hpp"

namespace {

void* address(const char* name, int version, cuuint64_t flags = 0) {
  void* out = nullptr;
  CUdriverProcAddressQueryResult status;
  return cuGetProcAddress(name, &out, version, flags, &status) == CUDA_SUCCESS ? out : nullptr;
}

void* symbol(const char* name) { return dlsym(RTLD_DEFAULT, name); }

}  // namespace

TEST_CASE("cuGetProcAddress picks the variant of the asked-for version") {
  CHECK(address("cuMemAlloc", 13000) == symbol("cuMemAlloc_v2"));
  CHECK(address("cuMemAlloc", 2000) == symbol("cuMemAlloc"));
  CHECK(address("cuStreamGetCaptureInfo", 12000) == symbol("cuStreamGetCaptureInfo_v2"));
  CHECK(address("cuStreamGetCaptureInfo", 12030) == symbol("cuStreamGetCaptureInfo_v3"));
  CHECK(address("cuCtxCreate", 13000) == symbol("cuCtxCreate_v4"));
  CHECK(address("cuGetProcAddress", 11030) == symbol("cuGetProcAddress"));
  CHECK(address("cuGetProcAddress", 12000) == symbol("cuGetProcAddress_v2"));
}

TEST_CASE("cuGetProcAddress gives per-thread variants when asked") {
  constexpr cuuint64_t kPerThread = CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
  CHECK(address("cuMemcpyHtoD", 13000, kPerThread) == symbol("cuMemcpyHtoD_v2_ptds"));
  CHECK(address("cuLaunchKernel", 13000, kPerThread) == symbol("cuLaunchKernel_ptsz"));
  CHECK(address("cuMemAlloc", 13000, kPerThread) == symbol("cuMemAlloc_v2"));
}

TEST_CASE("cuGetProcAddress says why it found nothing") {
  void* out = &out;
  CUdriverProcAddressQueryResult status;
  CHECK(cuGetProcAddress("cuNoSuchThing", &out, 13000, 0, &status) == CUDA_ERROR_NOT_FOUND);
  CHECK(status == CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
  CHECK(out == nullptr);
  CHECK(cuGetProcAddress("cuGraphAddNode", &out, 11000, 0, &status) == CUDA_ERROR_NOT_FOUND);
  CHECK(status == CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
}

TEST_CASE("every variant has an address, and unsupported ones say so") {
  for (const char* name : {"cuMemcpyHtoD", "cuMemcpyHtoD_v2_ptds", "cuEGLApiInit",
                           "cuGraphicsGLRegisterImage", "cudbgGetAPI", "cudbgIpcFlag"}) {
    CHECK(symbol(name) != nullptr);
  }
  auto unsupported = reinterpret_cast<CUresult (*)()>(symbol("cuEGLApiInit"));
  CHECK(unsupported() == CUDA_ERROR_NOT_SUPPORTED);
}

TEST_CASE("errors have names and texts") {
  const char* text = nullptr;
  OK(cuGetErrorName(CUDA_ERROR_ILLEGAL_ADDRESS, &text));
  CHECK(std::string(text) == "CUDA_ERROR_ILLEGAL_ADDRESS");
  OK(cuGetErrorString(CUDA_ERROR_ILLEGAL_ADDRESS, &text));
  CHECK(std::string(text) == "an illegal memory access was encountered");
  CHECK(cuGetErrorName(static_cast<CUresult>(12345), &text) == CUDA_ERROR_INVALID_VALUE);
  CHECK(text == nullptr);
}

TEST_CASE("the private tables are served") {
  OK(cuInit(0));
  const void* table = nullptr;
  CUuuid unknown{};
  CHECK(cuGetExportTable(&table, &unknown) == CUDA_ERROR_NOT_FOUND);
  CHECK(table == nullptr);
}
