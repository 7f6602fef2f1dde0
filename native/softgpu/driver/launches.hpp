// Kernel launches as programs describe them, turned into operations.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "function.hpp"
#include "operation.hpp"

namespace softgpu {

struct LaunchShape {
  unsigned grid[3];
  unsigned block[3];
  unsigned dynamic_shared_bytes;
  bool cooperative = false;
};

/// Checks the shape against the device and the kernel, and copies the parameters, which come as an
/// array of pointers or packed (`extra`), but not both.
CUresult launch_operation(std::shared_ptr<Function> function, const LaunchShape& shape,
                          void** parameters, void** extra, KernelOperation* out);

}  // namespace softgpu
