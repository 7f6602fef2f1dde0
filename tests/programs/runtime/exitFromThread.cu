// Ends the process from a second thread while the first waits for the device again and again.
// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <thread>

#include "runtime.hpp"

__global__ void fill(int* out) { out[threadIdx.x] = static_cast<int>(threadIdx.x); }

int main(int argc, char** argv) {
  Program program("exitFromThread", argc, argv);
  int* device = nullptr;
  CHECK(cudaMalloc(reinterpret_cast<void**>(&device), 64 * sizeof(int)));
  std::atomic<int> rounds{0};
  std::thread ending([&] {
    while (rounds.load() < 20) std::this_thread::yield();
    std::vector<int> out(64);
    CHECK(cudaMemcpy(out.data(), device, 64 * sizeof(int), cudaMemcpyDeviceToHost));
    program.expect(out[63] == 63, "the second thread sees the first one's work");
    std::exit(program.finish());
  });
  // While the process ends, calls may fail; they may not hang or crash.
  for (;;) {
    fill<<<1, 64>>>(device);
    cudaDeviceSynchronize();
    rounds.fetch_add(1);
  }
}
