// Device printf: the driver writes it to this process's stdout, which is a file in memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "base/fds.hpp"

namespace outboard::worker {

class DeviceText {
 public:
  /// Makes standard output a file in memory; nothing else may print there. False where it cannot.
  bool capture_stdout();
  /// What was written since the last call.
  std::string take();

 private:
  UniqueFd file_;
  uint64_t taken_bytes_ = 0;
};

}  // namespace outboard::worker
