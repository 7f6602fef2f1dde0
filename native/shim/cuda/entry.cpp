// Start-up, versions, entry points, the profiler's switches, and functions that are not supported.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>

#include "base/log.hpp"
#include "generated/proc_table.hpp"
#include "generated/shim_api.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {

CUresult cuInit(unsigned int Flags) {
  if (Flags != 0) return CUDA_ERROR_INVALID_VALUE;
  return start();
}

CUresult cuDriverGetVersion(int* driverVersion) {
  if (driverVersion == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *driverVersion = advertised_version;
  return CUDA_SUCCESS;
}

CUresult cuGetProcAddress_v2(const char* symbol, void** pfn, int cudaVersion, cuuint64_t flags,
                             CUdriverProcAddressQueryResult* symbolStatus) {
  if (symbol == nullptr || pfn == nullptr) return CUDA_ERROR_INVALID_VALUE;
  // The versions of functions that the servers' drivers lack do not exist here either.
  CUdriverProcAddressQueryResult status = CU_GET_PROC_ADDRESS_SUCCESS;
  *pfn = find_proc(symbol, std::min(cudaVersion, advertised_version), flags, &status);
  if (symbolStatus != nullptr) *symbolStatus = status;
  // With a place for the status, CUDA 12 and later report a missing function there and succeed.
  if (*pfn != nullptr) return CUDA_SUCCESS;
  return symbolStatus != nullptr ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuGetProcAddress(const char* symbol, void** pfn, int cudaVersion, cuuint64_t flags) {
  return cuGetProcAddress_v2(symbol, pfn, cudaVersion, flags, nullptr);
}

CUresult cuProfilerStart() { return enter(); }
CUresult cuProfilerStop() { return enter(); }

CUresult unsupported(ProcId id) {
  static std::atomic<bool> said[2048];
  const auto number = static_cast<size_t>(id);
  if (number < std::size(said) && !said[number].exchange(true)) {
    say("the program called %s, which is not supported; it gets CUDA_ERROR_NOT_SUPPORTED",
        proc_name(id));
  }
  return CUDA_ERROR_NOT_SUPPORTED;
}

}  // namespace outboard::shim
