// Stores to an address that is nobody's: error 700, which sticks until the process ends.
// SPDX-License-Identifier: Apache-2.0
#include "runtime.hpp"

__global__ void store(int* where, int value) { *where = value; }

int main(int argc, char** argv) {
  Program program("wildStore", argc, argv);
  const DeviceBuffer<int> device(16);
  const DeviceBuffer<int> large(1 << 20);
  store<<<1, 1>>>(device.get(), 1);
  CHECK(cudaDeviceSynchronize());
  store<<<1, 1>>>(reinterpret_cast<int*>(0x123456789000), 1);
  // A large copy, which waits for the kernel.
  std::vector<int> host(1 << 20);
  const cudaError_t error =
      cudaMemcpy(host.data(), large.get(), large.size_bytes(), cudaMemcpyDeviceToHost);
  std::printf("the wild store gives %d\n", static_cast<int>(error));
  program.expect(error == cudaErrorIllegalAddress, "a wild store is an illegal address (700)");
  store<<<1, 1>>>(device.get(), 2);
  program.expect(cudaDeviceSynchronize() == cudaErrorIllegalAddress,
                 "the error sticks to launches");
  void* more = nullptr;
  program.expect(cudaMalloc(&more, 1024) == cudaErrorIllegalAddress, "and to allocations");
  return program.finish();
}
