// cuGetProcAddress: from a name and a CUDA version to the variant that the program means.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "api.hpp"
#include "entry_table.hpp"

using namespace softgpu;

extern "C" CUresult cuGetProcAddress_v2(const char* symbol, void** out, int version,
                                        cuuint64_t flags, CUdriverProcAddressQueryResult* status) {
  constexpr cuuint64_t kKnown =
      CU_GET_PROC_ADDRESS_LEGACY_STREAM | CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
  if (symbol == nullptr || out == nullptr || (flags & ~kKnown) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *out = nullptr;
  auto answer = [&](CUdriverProcAddressQueryResult result) {
    if (status != nullptr) *status = result;
    return result == CU_GET_PROC_ADDRESS_SUCCESS ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
  };
  const Entry* end = kEntries + kEntryCount;
  const Entry* first = std::lower_bound(kEntries, end, symbol, [](const Entry& e, const char* s) {
    return std::strcmp(e.base, s) < 0;
  });
  if (first == end || std::strcmp(first->base, symbol) != 0) {
    return answer(CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
  }
  const Entry* best = nullptr;
  for (const Entry* e = first; e != end && std::strcmp(e->base, symbol) == 0; ++e) {
    if (e->since <= version) best = e;
  }
  if (best == nullptr) return answer(CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
  bool per_thread = (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) != 0;
  *out = per_thread && best->per_thread != nullptr ? best->per_thread : best->function;
  return answer(CU_GET_PROC_ADDRESS_SUCCESS);
}

extern "C" CUresult cuGetProcAddress(const char* symbol, void** out, int version,
                                     cuuint64_t flags) {
  return cuGetProcAddress_v2(symbol, out, version, flags, nullptr);
}
