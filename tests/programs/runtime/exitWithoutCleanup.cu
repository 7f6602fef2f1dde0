// Ends with work queued, streams, events and memory of every kind left behind.
// SPDX-License-Identifier: Apache-2.0
#include "runtime.hpp"

__global__ void fill(int* out) { out[threadIdx.x] = static_cast<int>(threadIdx.x); }

// Uses CUDA while static objects are destroyed, as libraries do.
struct Late {
  ~Late() {
    if (stream != nullptr) cudaStreamDestroy(stream);
    cudaFree(memory);
  }
  cudaStream_t stream = nullptr;
  void* memory = nullptr;
};
static Late late;

int main(int argc, char** argv) {
  Program program("exitWithoutCleanup", argc, argv);
  int* device = nullptr;
  int* pinned = nullptr;
  cudaStream_t stream;
  cudaEvent_t event;
  CHECK(cudaStreamCreate(&late.stream));
  CHECK(cudaMalloc(&late.memory, 1 << 20));
  CHECK(cudaMalloc(reinterpret_cast<void**>(&device), 4096));
  CHECK(cudaMallocHost(reinterpret_cast<void**>(&pinned), 4096));
  CHECK(cudaStreamCreate(&stream));
  CHECK(cudaEventCreate(&event));
  fill<<<1, 64, 0, stream>>>(device);
  CHECK(cudaMemcpyAsync(pinned, device, 64 * sizeof(int), cudaMemcpyDeviceToHost, stream));
  CHECK(cudaEventRecord(event, stream));
  CHECK(cudaStreamSynchronize(stream));
  program.expect(pinned[63] == 63, "the work was done");
  for (int i = 0; i < 50; ++i) fill<<<1, 64, 0, stream>>>(device);
  return program.finish();
}
