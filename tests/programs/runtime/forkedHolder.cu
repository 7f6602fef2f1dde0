// Forks four children that live on, holding every descriptor that they inherit; prints READY.
// SPDX-License-Identifier: Apache-2.0
//
// The children outlive a parent that is killed with -9, so they wait for the file named by
// --release to appear.
#include <unistd.h>

#include "runtime.hpp"

__global__ void fill(int* out) { out[threadIdx.x] = static_cast<int>(threadIdx.x); }

int main(int argc, char** argv) {
  Program program("forkedHolder", argc, argv);
  const char* release = program.text("release", nullptr);
  if (release == nullptr) program.die("--release FILE is missing: children wait until it exists");
  const DeviceBuffer<int> device(32);
  fill<<<1, 32>>>(device.get());
  CHECK(cudaDeviceSynchronize());
  for (int i = 0; i < 4; ++i) {
    const pid_t child = fork();
    if (child < 0) program.die("fork failed");
    if (child > 0) continue;
    // CUDA is not usable after a fork, here as natively.
    int* memory = nullptr;
    const bool refused = cudaMalloc(reinterpret_cast<void**>(&memory), 4) != cudaSuccess;
    std::printf("CHILD %d %s\n", static_cast<int>(getpid()), refused ? "refused" : "served");
    std::fflush(stdout);
    while (access(release, F_OK) != 0) usleep(20000);
    _exit(refused ? 0 : 1);
  }
  program.expect(device.download()[31] == 31, "the parent goes on after its forks");
  std::printf("READY %d\n", static_cast<int>(getpid()));
  std::fflush(stdout);
  while (access(release, F_OK) != 0) usleep(20000);
  return program.finish();
}
