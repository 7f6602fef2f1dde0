// Prints from kernels between prints of the host: the order on stdout is the program's.
// SPDX-License-Identifier: Apache-2.0
#include "runtime.hpp"

struct Pair {
  int number;
  double half;
};

__global__ void say(int round) {
  const Pair pair = {round * 7, round / 2.0};
  printf("device: round %d: %5.2f %-6s| %#x %c %llu %%\n", pair.number, pair.half, "left", 48879,
         'x', 1ULL << 40);
}

__global__ void say_many() { printf("device: thread %d of block %d\n", threadIdx.x, blockIdx.x); }

int main(int argc, char** argv) {
  Program program("devicePrintf", argc, argv);
  // Fully buffered when stdout is a file or a pipe: the host's text must still come first.
  for (int round = 0; round < 3; ++round) {
    std::printf("host: before round %d\n", round);
    say<<<1, 1>>>(round);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    std::printf("host: after round %d\n", round);
    std::fflush(stdout);
  }
  say_many<<<2, 3>>>();
  CHECK(cudaGetLastError());
  CHECK(cudaDeviceSynchronize());
  return program.finish();
}
