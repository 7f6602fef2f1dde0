// The one line that a call to an unknown slot of a private table leaves on stderr.
// SPDX-License-Identifier: Apache-2.0
#include "unserved.hpp"

#include <cstdio>

namespace outboard::tables {

CUresult report_unserved(const char* table, size_t slot, std::atomic<bool>& reported) {
  if (!reported.exchange(true, std::memory_order_relaxed)) {
    std::fprintf(
        stderr,
        "outboard: a CUDA library called slot %zu of the private driver table %s, which is "
        "not supported; please report this with the program's name.\n",
        slot, table);
  }
  return CUDA_ERROR_NOT_SUPPORTED;
}

}  // namespace outboard::tables
