// Ends the process from a second thread, with work queued, while the first waits for that thread.
// SPDX-License-Identifier: Apache-2.0
#include <thread>

#include "runtime.hpp"

__global__ void fill(int* out) { out[threadIdx.x] = static_cast<int>(threadIdx.x); }

int main(int argc, char** argv) {
  Program program("exitFromThread", argc, argv);
  int* device = nullptr;
  CHECK(cudaMalloc(reinterpret_cast<void**>(&device), 64 * sizeof(int)));
  fill<<<1, 64>>>(device);
  CHECK(cudaGetLastError());
  std::thread ending([&] {
    std::vector<int> out(64);
    CHECK(cudaMemcpy(out.data(), device, 64 * sizeof(int), cudaMemcpyDeviceToHost));
    program.expect(out[63] == 63, "the second thread sees the first one's work");
    // Work is still queued when the process ends.
    for (int i = 0; i < 50; ++i) fill<<<1, 64>>>(device);
    std::exit(program.finish());
  });
  // Calls during the end of a process crash natively too, so the first thread makes none.
  ending.join();
}
