// Launches what no device can run: the launch fails, the process goes on.
// SPDX-License-Identifier: Apache-2.0
#include "runtime.hpp"

__global__ void fill(int* out, int value) { out[threadIdx.x] = value; }

int main(int argc, char** argv) {
  Program program("refusedLaunch", argc, argv);
  const DeviceBuffer<int> device(std::vector<int>(32, 0));
  fill<<<1, 4096>>>(device.get(), 1);
  program.expect(cudaGetLastError() == cudaErrorInvalidValue, "4096 threads are too many (1)");
  fill<<<1, 32, 10U << 20U>>>(device.get(), 2);
  program.expect(cudaGetLastError() == cudaErrorInvalidValue,
                 "10 MiB of shared memory are too much (1)");
  fill<<<0, 32>>>(device.get(), 3);
  program.expect(cudaGetLastError() == cudaErrorInvalidValue, "an empty grid is refused (1)");
  program.expect(cudaDeviceSynchronize() == cudaSuccess, "nothing of that sticks");
  program.expect(device.download() == std::vector<int>(32, 0), "and nothing was written");
  fill<<<1, 32>>>(device.get(), 4);
  program.expect(cudaGetLastError() == cudaSuccess, "a good launch is taken");
  program.expect(device.download() == std::vector<int>(32, 4), "and does its work");
  program.save(device.download());
  return program.finish();
}
