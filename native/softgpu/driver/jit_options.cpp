// The options of cuModuleLoadDataEx, cuLibraryLoadData and cuLink*.
// SPDX-License-Identifier: Apache-2.0
#include "jit_options.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace softgpu {
namespace {

void write(const std::string& text, char* buffer, void** size) {
  if (size == nullptr) return;
  // The size is passed by value in its slot, and how much was written goes back there. It is a
  // 32-bit number: programs leave the slot's upper half as it happens to be.
  size_t room = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(*size));
  size_t used = 0;
  if (buffer != nullptr && room > 0) {
    used = std::min(text.size(), room - 1);
    std::memcpy(buffer, text.data(), used);
    buffer[used] = '\0';
    if (used > 0) ++used;
  }
  *size = reinterpret_cast<void*>(static_cast<uintptr_t>(used));
}

}  // namespace

JitOptions::JitOptions(unsigned count, const CUjit_option* options, void** values) {
  if (count == 0) return;
  valid_ = options != nullptr && values != nullptr;
  for (unsigned i = 0; valid_ && i < count; ++i) {
    switch (options[i]) {
      case CU_JIT_INFO_LOG_BUFFER:
        info_ = static_cast<char*>(values[i]);
        break;
      case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
        info_size_ = &values[i];
        break;
      case CU_JIT_ERROR_LOG_BUFFER:
        error_ = static_cast<char*>(values[i]);
        break;
      case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
        error_size_ = &values[i];
        break;
      case CU_JIT_WALL_TIME:
        wall_time_ = &values[i];
        break;
      default:  // how to optimise: an interpreter has no use for it
        break;
    }
  }
}

void JitOptions::report(const std::string& info, const std::string& error,
                        float milliseconds) const {
  write(info, info_, info_size_);
  write(error, error_, error_size_);
  if (wall_time_ != nullptr) std::memcpy(wall_time_, &milliseconds, sizeof milliseconds);
}

}  // namespace softgpu
