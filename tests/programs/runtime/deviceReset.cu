// Resets the device and uses it again, then resets it as the last thing it does.
// SPDX-License-Identifier: Apache-2.0
#include "runtime.hpp"

__device__ int global = 5;

__global__ void add(int* out) { out[threadIdx.x] = static_cast<int>(threadIdx.x) + global++; }

static int run_once(std::vector<int>* out) {
  int* device = nullptr;
  CHECK(cudaMalloc(reinterpret_cast<void**>(&device), sizeof(int)));
  add<<<1, 1>>>(device);
  CHECK(cudaGetLastError());
  int value = 0;
  CHECK(cudaMemcpy(&value, device, sizeof(value), cudaMemcpyDeviceToHost));
  out->push_back(value);
  return value;  // the memory is left to the reset
}

int main(int argc, char** argv) {
  Program program("deviceReset", argc, argv);
  std::vector<int> out;
  program.expect(run_once(&out) == 5, "the first run sees the initial value");
  program.expect(run_once(&out) == 6, "the second sees what the first left");
  CHECK(cudaDeviceReset());
  program.expect(run_once(&out) == 5, "after a reset everything is as at the start");
  CHECK(cudaDeviceReset());
  program.save(out);
  return program.finish();
}
