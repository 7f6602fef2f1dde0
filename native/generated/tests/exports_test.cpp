// Exports: the variant for each version, the streams of per-thread variants, guards, refusals.
// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <new>
#include <stdexcept>
#include <string_view>

#include "generated/proc_table.hpp"
#include "generated/shim_api.hpp"
#include "generated/unsupported_attributes.hpp"

namespace outboard::shim {
namespace {

CUstream last_stream = nullptr;
bool scoped = false;
ProcId refused = ProcId::count;

template <typename Function>
void* at(Function* function) {
  return reinterpret_cast<void*>(function);
}

void* find(const char* name, int version, CUdriverProcAddressQueryResult* status,
           cuuint64_t flags = 0) {
  *status = static_cast<CUdriverProcAddressQueryResult>(77);
  return find_proc(name, version, flags, status);
}

}  // namespace

// The hand-written bodies that the tests reach.
CUresult unsupported(ProcId id) {
  refused = id;
  return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult cuStreamSynchronize(CUstream stream) {
  last_stream = stream;
  return CUDA_SUCCESS;
}
CUresult cuStreamDestroy_v2(CUstream stream) {
  last_stream = stream;
  return CUDA_ERROR_INVALID_HANDLE;
}
CUresult cuMemcpyDtoD_v2(CUdeviceptr, CUdeviceptr, size_t) {
  scoped = per_thread_default_stream();
  return CUDA_SUCCESS;
}
CUresult cuLaunchKernelEx(const CUlaunchConfig*, CUfunction, void**, void**) {
  scoped = per_thread_default_stream();
  return CUDA_SUCCESS;
}
CUresult cuCtxSetCurrent(CUcontext) { throw std::bad_alloc(); }
CUresult cuCtxGetCurrent(CUcontext*) { throw std::runtime_error("a fault of ours"); }

TEST_CASE("the newest variant that a version knows is handed out") {
  CUdriverProcAddressQueryResult status;
  CHECK(find("cuMemAlloc", 3020, &status) == at(&::cuMemAlloc_v2));
  CHECK(status == CU_GET_PROC_ADDRESS_SUCCESS);
  CHECK(find("cuMemAlloc", 3010, &status) == at(&::cuMemAlloc));
  CHECK(find("cuMemAlloc", 13000, &status) == at(&::cuMemAlloc_v2));
  CHECK(find("cuStreamBeginCapture", 10000, &status) == at(&::cuStreamBeginCapture));
  CHECK(find("cuStreamBeginCapture", 10010, &status) == at(&::cuStreamBeginCapture_v2));
  CHECK(find("cuGetProcAddress", 11030, &status) == at(&::cuGetProcAddress));
  CHECK(find("cuGetProcAddress", 12000, &status) == at(&::cuGetProcAddress_v2));
  CHECK(find("cuCtxGetDevice", 12080, &status) == at(&::cuCtxGetDevice));
  CHECK(find("cuCtxGetDevice", 13000, &status) == at(&::cuCtxGetDevice_v2));
  CHECK(find("cuCtxSynchronize", 13000, &status) == at(&::cuCtxSynchronize_v2));
  CHECK(find("cuEventElapsedTime", 12070, &status) == at(&::cuEventElapsedTime));
  CHECK(find("cuEventElapsedTime", 12080, &status) == at(&::cuEventElapsedTime_v2));
  CHECK(find("cuStreamGetCaptureInfo", 12020, &status) == at(&::cuStreamGetCaptureInfo_v2));
  CHECK(find("cuStreamGetCaptureInfo", 12030, &status) == at(&::cuStreamGetCaptureInfo_v3));
  CHECK(find("cuCtxCreate", 13000, &status) == at(&::cuCtxCreate_v4));
}

TEST_CASE("per-thread variants are handed out where they exist") {
  CUdriverProcAddressQueryResult status;
  const cuuint64_t per_thread = CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
  CHECK(find("cuStreamBeginCapture", 10010, &status, per_thread) ==
        at(&::cuStreamBeginCapture_v2_ptsz));
  CHECK(find("cuMemcpyHtoD", 13000, &status, per_thread) == at(&::cuMemcpyHtoD_v2_ptds));
  CHECK(find("cuMemAlloc", 13000, &status, per_thread) == at(&::cuMemAlloc_v2));
  CHECK(find("cuMemcpyHtoD", 13000, &status, CU_GET_PROC_ADDRESS_LEGACY_STREAM) ==
        at(&::cuMemcpyHtoD_v2));
}

TEST_CASE("what is too new or not known is not handed out") {
  CUdriverProcAddressQueryResult status;
  CHECK(find("cuLaunchKernelEx", 11050, &status) == nullptr);
  CHECK(status == CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
  for (const char* name : {"cuNoSuchFunction", "", "cuMemAlloc_v2", "cuMemcpyHtoD_v2_ptds", "zz"}) {
    CHECK(find(name, 13000, &status) == nullptr);
    CHECK(status == CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
  }
}

TEST_CASE("per-thread variants turn a null stream into the thread's own") {
  CHECK(::cuStreamSynchronize(nullptr) == CUDA_SUCCESS);
  CHECK(last_stream == nullptr);
  CHECK(::cuStreamSynchronize_ptsz(nullptr) == CUDA_SUCCESS);
  CHECK(last_stream == CU_STREAM_PER_THREAD);
  CHECK(::cuStreamSynchronize_ptsz(CU_STREAM_LEGACY) == CUDA_SUCCESS);
  CHECK(last_stream == CU_STREAM_LEGACY);
}

TEST_CASE("per-thread variants of implied streams say so while they run") {
  ::cuMemcpyDtoD_v2(0, 0, 0);
  CHECK_FALSE(scoped);
  ::cuMemcpyDtoD_v2_ptds(0, 0, 0);
  CHECK(scoped);
  CHECK_FALSE(per_thread_default_stream());
  scoped = false;
  ::cuLaunchKernelEx_ptsz(nullptr, nullptr, nullptr, nullptr);
  CHECK(scoped);
}

TEST_CASE("an alias runs its target and gives its result") {
  last_stream = nullptr;
  const auto stream = reinterpret_cast<CUstream>(uintptr_t{64});
  CHECK(::cuStreamDestroy(stream) == CUDA_ERROR_INVALID_HANDLE);
  CHECK(last_stream == stream);
}

TEST_CASE("no exception reaches the program") {
  CHECK(::cuCtxSetCurrent(nullptr) == CUDA_ERROR_OUT_OF_MEMORY);
  CHECK(::cuCtxGetCurrent(nullptr) == CUDA_ERROR_UNKNOWN);
}

TEST_CASE("an unsupported function refuses under its own name, with a reason") {
  CHECK(::cuMemRangeGetAttribute(nullptr, 0, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, 0, 0) ==
        CUDA_ERROR_NOT_SUPPORTED);
  CHECK(refused == ProcId::cuMemRangeGetAttribute);
  CHECK(std::string_view(proc_name(refused)) == "cuMemRangeGetAttribute");
  CHECK(unsupported_reason(refused) != nullptr);
  CHECK(unsupported_reason(ProcId::cuMemAlloc_v2) == nullptr);
}

TEST_CASE("attributes of unsupported functions are known") {
  CHECK(attribute_unsupported(CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS));
  CHECK(attribute_unsupported(CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM));
  CHECK_FALSE(attribute_unsupported(CU_DEVICE_ATTRIBUTE_WARP_SIZE));
}

}  // namespace outboard::shim
