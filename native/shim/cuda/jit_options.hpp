// Options of the JIT: what travels, and the log buffers that come back.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <string_view>
#include <vector>

namespace outboard::shim {

/// A program's option arrays. Values that are pointers stay here.
class JitOptions {
 public:
  /// CUDA_ERROR_INVALID_VALUE for what makes no sense, NOT_SUPPORTED for options that name memory.
  CUresult read(unsigned count, CUjit_option* options, void** values);
  /// Fills the program's buffers and sets the sizes that it asked for.
  void write(std::string_view info, std::string_view error, float wall_time) const;
  /// (option, value) pairs for the wire.
  const std::vector<uint64_t>& pairs() const { return pairs_; }

 private:
  struct Log {
    char* buffer = nullptr;
    uint64_t bytes = 0;
    void** used = nullptr;
  };
  static void fill(const Log& log, std::string_view text);
  std::vector<uint64_t> pairs_;
  Log info_, error_;
  void** wall_time_ = nullptr;
};

}  // namespace outboard::shim
