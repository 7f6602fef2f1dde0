// Lets what nvcc 13 makes of a launch link with a CUDA runtime that is older than 12.1.
// SPDX-License-Identifier: Apache-2.0
//
// nvcc 13 looks a kernel up once and launches it by its handle; nvcc 11 launched by the address of
// the host's stub. Both functions below say the one by means of the other, so that the old runtime
// sees the calls that an old nvcc would have made.
#include <cstddef>

struct Size3 {
  unsigned x, y, z;
};

extern "C" {
int cudaLaunchKernel(const void* stub, Size3 grid, Size3 block, void** arguments,
                     size_t shared_bytes, void* stream);
int cudaLaunchKernel_ptsz(const void* stub, Size3 grid, Size3 block, void** arguments,
                          size_t shared_bytes, void* stream);

int __cudaGetKernel(const void** kernel, const void* stub) {
  *kernel = stub;
  return 0;
}

int __cudaLaunchKernel(const void* kernel, Size3 grid, Size3 block, void** arguments,
                       size_t shared_bytes, void* stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, shared_bytes, stream);
}

int __cudaLaunchKernel_ptsz(const void* kernel, Size3 grid, Size3 block, void** arguments,
                            size_t shared_bytes, void* stream) {
  return cudaLaunchKernel_ptsz(kernel, grid, block, arguments, shared_bytes, stream);
}
}
