// Who reads or writes device memory just now, so that pages are taken away only afterwards.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

namespace softgpu {

/// cuMemUnmap does not wait for kernels, but a kernel that runs has checked its addresses against
/// the ranges of its launch. So the pages behind an unmapped range stay until nothing runs.
struct Activity {
  class Scope {
   public:
    Scope();
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
  };

  /// Puts PROT_NONE pages over [base, base + bytes): now if nothing runs, else afterwards.
  static void conceal(uint64_t base, uint64_t bytes);
  /// Gives the address range itself back to the system, now or afterwards.
  static void discard(uint64_t base, uint64_t bytes);
  /// [base, base + bytes) is being mapped again: forget that it was to be concealed. To be called
  /// with the mapping itself inside `map`, so that no conceal comes between.
  static int remap(uint64_t base, uint64_t bytes, const std::function<int()>& map);
};

}  // namespace softgpu
