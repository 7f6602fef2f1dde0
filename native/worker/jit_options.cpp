// JIT options.
// SPDX-License-Identifier: Apache-2.0
#include "worker/jit_options.hpp"

#include <algorithm>
#include <cstring>

namespace outboard::worker {
namespace {

constexpr uint64_t most_log_bytes = 256 << 10;  // two of them fit in a reply's frame

}  // namespace

void JitOptions::add(CUjit_option option, uint64_t value) {
  options_.push_back(option);
  values_.push_back(reinterpret_cast<void*>(value));
}

void JitOptions::add_log(Log& log, uint64_t bytes, CUjit_option buffer, CUjit_option size) {
  if (bytes == 0 || !log.buffer.empty()) return;
  log.buffer.resize(std::min(bytes, most_log_bytes));
  add(buffer, reinterpret_cast<uint64_t>(log.buffer.data()));
  log.size_index = options_.size();
  add(size, log.buffer.size());
}

bool JitOptions::read(std::span<const uint64_t> pairs) {
  if (pairs.size() % 2 != 0) return false;
  for (size_t i = 0; i < pairs.size(); i += 2) {
    const auto option = static_cast<CUjit_option>(pairs[i]);
    const uint64_t value = pairs[i + 1];
    switch (option) {
      case CU_JIT_INFO_LOG_BUFFER:
      case CU_JIT_ERROR_LOG_BUFFER:
        break;  // comes with its size
      case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
        add_log(info_, value, CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES);
        break;
      case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
        add_log(error_, value, CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES);
        break;
      case CU_JIT_WALL_TIME:
        wall_time_index_ = options_.size();
        add(option, 0);
        break;
      case CU_JIT_GLOBAL_SYMBOL_NAMES:
      case CU_JIT_GLOBAL_SYMBOL_ADDRESSES:
      case CU_JIT_REFERENCED_KERNEL_NAMES:
      case CU_JIT_REFERENCED_VARIABLE_NAMES:
        return false;
      default:
        if (pairs[i] >= CU_JIT_NUM_OPTIONS) return false;
        add(option, value);
    }
  }
  return true;
}

// The driver puts what it wrote into the size's value; a driver that does not leaves a text that
// ends.
std::string_view JitOptions::Log::text(const std::vector<void*>& values) const {
  if (buffer.empty()) return {};
  const auto written = reinterpret_cast<uint64_t>(values[size_index]);
  return {buffer.data(), ::strnlen(buffer.data(), std::min<uint64_t>(written, buffer.size()))};
}

float JitOptions::wall_time_ms() const {
  if (wall_time_index_ == SIZE_MAX) return 0;
  float time = 0;
  std::memcpy(&time, &values_[wall_time_index_], sizeof time);
  return time;
}

}  // namespace outboard::worker
