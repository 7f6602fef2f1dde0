// The options of cuModuleLoadDataEx, cuLibraryLoadData and cuLink*: mostly where logs go.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "api.hpp"

namespace softgpu {

class JitOptions {
 public:
  JitOptions() = default;
  JitOptions(unsigned count, const CUjit_option* options, void** values);
  bool valid() const { return valid_; }
  /// Writes the logs into the program's buffers, and how much of them was filled in.
  void report(const std::string& info, const std::string& error, float milliseconds) const;

 private:
  bool valid_ = true;
  char* info_ = nullptr;
  void** info_size_ = nullptr;
  char* error_ = nullptr;
  void** error_size_ = nullptr;
  void** wall_time_ = nullptr;
};

}  // namespace softgpu
