// The other file of the relocatable program: a device function, a device global, a kernel.
// SPDX-License-Identifier: Apache-2.0
#include "rdc.hpp"

__device__ int shared_offset = 1;

__device__ int polynomial(int x) { return 3 * x * x - 5 * x + 7; }

__global__ void negate(int* out, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] = -(polynomial(i) + shared_offset);
}

void launch_from_other_file(int* out, int count) {
  negate<<<(count + 127) / 128, 128>>>(out, count);
  CHECK(cudaGetLastError());
}
