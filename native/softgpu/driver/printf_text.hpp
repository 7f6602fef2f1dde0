// What kernels print, kept until the program synchronises.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace softgpu {

/// CUDA writes what kernels print to the program's stdout when it synchronises, not when the kernel
/// runs; programs count on the order with their own prints.
struct PrintfText {
  static void append(std::string_view text);
  static void flush();  ///< to stdio's stdout
};

}  // namespace softgpu
