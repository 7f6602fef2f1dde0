// Who wants to be told that a device's memory is over budget, the same for every libcuda.so.1.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

namespace outboard {

/// Nobody is ever told: a program that goes beyond its share is refused the memory.
CUresult add_notification(CUdevice device, CUasyncCallback function, void* data,
                          CUasyncCallbackHandle* out);
CUresult remove_notification(CUdevice device, CUasyncCallbackHandle handle);

}  // namespace outboard
