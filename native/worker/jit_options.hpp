// JIT options off the wire: numbers pass, buffers are ours.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace outboard::worker {

/// The options of one load or link, as the driver takes them. Log buffers are as large as the
/// client's.
class JitOptions {
 public:
  /// From pairs of (CUjit_option, value). False where an option's value would be an address.
  bool read(std::span<const uint64_t> pairs);

  CUjit_option* options() { return options_.data(); }
  void** values() { return values_.data(); }
  unsigned count() const { return static_cast<unsigned>(options_.size()); }

  /// After the call: what the driver wrote.
  std::string_view info_log() const { return info_.text(values_); }
  std::string_view error_log() const { return error_.text(values_); }
  float wall_time_ms() const;

 private:
  struct Log {
    std::vector<char> buffer;
    size_t size_index = 0;
    std::string_view text(const std::vector<void*>& values) const;
  };
  void add(CUjit_option option, uint64_t value);
  void add_log(Log& log, uint64_t bytes, CUjit_option buffer, CUjit_option size);

  std::vector<CUjit_option> options_;
  std::vector<void*> values_;
  Log info_;
  Log error_;
  size_t wall_time_index_ = SIZE_MAX;
};

}  // namespace outboard::worker
