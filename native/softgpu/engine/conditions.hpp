// The values by which graphs decide what runs next; kernels set them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

namespace softgpu {

/// All of the process's: a kernel names one by a number that the program gave it.
class Conditions {
 public:
  static Conditions& get();

  uint64_t create();
  void destroy(uint64_t handle);
  /// False: there is none of that number.
  bool set(uint64_t handle, uint32_t value);
  /// 0 where there is none.
  uint32_t value(uint64_t handle);

 private:
  std::mutex mutex_;
  uint64_t last_ = 0;
  std::map<uint64_t, uint32_t> values_;
};

}  // namespace softgpu
