// Marshalling of JIT options by their type.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/jit_options.hpp"

#include <algorithm>
#include <cstring>

namespace outboard::shim {

CUresult JitOptions::read(unsigned count, CUjit_option* options, void** values) {
  if (count != 0 && (options == nullptr || values == nullptr)) return CUDA_ERROR_INVALID_VALUE;
  for (unsigned i = 0; i < count; ++i) {
    const auto value = reinterpret_cast<uint64_t>(values[i]);
    switch (options[i]) {
      case CU_JIT_WALL_TIME:
        wall_time_ = &values[i];
        continue;
      case CU_JIT_INFO_LOG_BUFFER:
        info_.buffer = static_cast<char*>(values[i]);
        continue;
      case CU_JIT_ERROR_LOG_BUFFER:
        error_.buffer = static_cast<char*>(values[i]);
        continue;
      case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
        info_.bytes = static_cast<uint32_t>(value);
        info_.used = &values[i];
        break;
      case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
        error_.bytes = static_cast<uint32_t>(value);
        error_.used = &values[i];
        break;
      case CU_JIT_GLOBAL_SYMBOL_NAMES:
      case CU_JIT_GLOBAL_SYMBOL_ADDRESSES:
      case CU_JIT_REFERENCED_KERNEL_NAMES:
      case CU_JIT_REFERENCED_VARIABLE_NAMES:
        return CUDA_ERROR_NOT_SUPPORTED;
      default:
        if (options[i] < 0 || options[i] >= CU_JIT_NUM_OPTIONS) return CUDA_ERROR_INVALID_VALUE;
    }
    pairs_.push_back(options[i]);
    pairs_.push_back(value);
  }
  return CUDA_SUCCESS;
}

void JitOptions::fill(const Log& log, std::string_view text) {
  size_t used = 0;
  if (log.buffer != nullptr && log.bytes != 0) {
    used = std::min<size_t>(text.size(), log.bytes - 1);
    std::memcpy(log.buffer, text.data(), used);
    log.buffer[used] = 0;
  }
  if (log.used != nullptr) *log.used = reinterpret_cast<void*>(uint64_t{used});
}

void JitOptions::write(std::string_view info, std::string_view error, float wall_time) const {
  fill(info_, info);
  fill(error_, error);
  if (wall_time_ != nullptr) {
    *wall_time_ = nullptr;
    std::memcpy(wall_time_, &wall_time, sizeof wall_time);
  }
}

}  // namespace outboard::shim
