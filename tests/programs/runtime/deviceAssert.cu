// An assertion fails in a kernel: what the kernels said until then is printed, error 710 sticks.
// SPDX-License-Identifier: Apache-2.0
#include <cassert>

#include "runtime.hpp"

__global__ void check_values(const int* values, int most) {
  const int value = values[threadIdx.x];
  if (threadIdx.x == 0) printf("device: the first value is %d\n", value);
  assert(value < most);
}

int main(int argc, char** argv) {
  Program program("deviceAssert", argc, argv);
  const DeviceBuffer<int> values(std::vector<int>(32, 5));
  std::printf("host: before the kernel\n");
  check_values<<<1, 32>>>(values.get(), 5);
  CHECK(cudaGetLastError());
  const cudaError_t error = cudaDeviceSynchronize();
  std::printf("host: the kernel gives %d\n", static_cast<int>(error));
  program.expect(error == cudaErrorAssert, "a failed assertion is an error (710)");
  check_values<<<1, 32>>>(values.get(), 6);
  program.expect(cudaDeviceSynchronize() == cudaErrorAssert, "the error sticks");
  return program.finish();
}
