// What kernels say: the driver writes device printf to this process's stdout and failed assertions
// to stdio's stderr, which are files in memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "base/fds.hpp"

namespace outboard::worker {

class DeviceText {
 public:
  DeviceText() = default;
  DeviceText(const DeviceText&) = delete;
  DeviceText& operator=(const DeviceText&) = delete;
  ~DeviceText() { take_errors(); }

  /// Makes standard output and stdio's `stderr` files in memory; nothing else may print there.
  /// Descriptor 2 stays the worker's log, for the lines of base/log.hpp, the C library's last words
  /// and the sanitizers'. Before the driver is loaded. False where it cannot.
  bool capture();
  /// What was written to stdout since the last call.
  std::string take();
  /// What was written to stderr since the last call; the log gets it as well.
  std::string take_errors();

 private:
  struct Capture {
    UniqueFd file;
    uint64_t taken_bytes = 0;

    bool open(const char* name);
    std::string take();
  };
  Capture output_, errors_;
};

}  // namespace outboard::worker
