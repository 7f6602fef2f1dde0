// The table that cuGetProcAddress searches. It is generated: see emit_entries.py.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace softgpu {

struct Entry {
  const char* base;  ///< the name without _v2, _ptsz
  int since;         ///< the CUDA version that this variant appeared in, as 12030 for 12.3
  void* function;
  void* per_thread;  ///< its _ptsz or _ptds form, or null
};

extern const Entry kEntries[];  ///< sorted by base, then since
extern const size_t kEntryCount;

}  // namespace softgpu
