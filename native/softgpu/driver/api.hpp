// CUDA's driver API as this library exports it: every variant declared under its own name.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#define __CUDA_API_VERSION_INTERNAL
#pragma GCC visibility push(default)
#include <cuda.h>
extern "C" {
// Declared in headers that CUDA's wheels do not carry.
CUresult cuProfilerInitialize(const char* config, const char* output, int mode);
CUresult cuProfilerStart();
CUresult cuProfilerStop();
}
#pragma GCC visibility pop
