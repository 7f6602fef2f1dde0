// Computes on every device of the session at once, each a part of one sum.
// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "runtime.hpp"

__global__ void square(unsigned long long* values, unsigned long long first, int count) {
  const int at = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (at < count) values[at] = (first + at) * (first + at);
}

int main(int argc, char** argv) {
  Program program("everyDevice", argc, argv);
  constexpr int count = 4096;
  int devices = 0;
  CHECK(cudaGetDeviceCount(&devices));
  std::vector<std::unique_ptr<DeviceBuffer<unsigned long long>>> buffers;
  for (int device = 0; device < devices; ++device) {
    CHECK(cudaSetDevice(device));
    buffers.push_back(std::make_unique<DeviceBuffer<unsigned long long>>(count));
    square<<<count / 256, 256>>>(buffers.back()->get(),
                                 static_cast<unsigned long long>(device) * count, count);
    CHECK(cudaGetLastError());
  }
  unsigned long long sum = 0;
  for (int device = 0; device < devices; ++device) {
    CHECK(cudaSetDevice(device));
    for (const unsigned long long value : buffers[device]->download()) sum += value;
    buffers[device].reset();
  }
  const unsigned long long n = static_cast<unsigned long long>(devices) * count - 1;
  program.expect(sum == n * (n + 1) * (2 * n + 1) / 6, "the parts add up to the whole");
  std::printf("devices: %d\n", devices);
  return program.finish();
}
