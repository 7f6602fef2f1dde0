// A synchronous copy to the device is done for every stream, also for one that the default stream
// does not order.
// SPDX-License-Identifier: Apache-2.0
#include "runtime.hpp"

__global__ void count_others(const int* values, int count, int expected, int* others) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count && values[i] != expected) atomicAdd(others, 1);
}

int main(int argc, char** argv) {
  Program program("uploadOrder", argc, argv);
  constexpr int kCount = 2 << 20;
  constexpr int kSmall = 1000;
  const DeviceBuffer<int> large(kCount);
  const DeviceBuffer<int> small(kSmall);
  const DeviceBuffer<int> others(std::vector<int>(1, 0));
  cudaStream_t stream;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  for (int round = 1; round <= 10; ++round) {
    const std::vector<int> values(kCount, round);
    CHECK(cudaMemcpy(large.get(), values.data(), large.size_bytes(), cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(small.get(), values.data(), small.size_bytes(), cudaMemcpyHostToDevice));
    count_others<<<(kSmall + 255) / 256, 256, 0, stream>>>(small.get(), kSmall, round,
                                                           others.get());
    count_others<<<(kCount + 255) / 256, 256, 0, stream>>>(large.get(), kCount, round,
                                                           others.get());
    CHECK(cudaStreamSynchronize(stream));
  }
  const std::vector<int> wrong = others.download();
  program.expect(wrong[0] == 0, "a kernel on any stream finds what was copied before it");
  program.save(wrong);
  return program.finish();
}
