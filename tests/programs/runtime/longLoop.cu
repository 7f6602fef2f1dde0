// Works until it is killed, the device reports an error, or --rounds are over; prints READY first.
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include "runtime.hpp"

__global__ void spin(unsigned* out, int rounds) {
  unsigned value = threadIdx.x;
  for (int i = 0; i < rounds; ++i) value = value * 1664525U + 1013904223U;
  out[threadIdx.x] = value;
}

int main(int argc, char** argv) {
  Program program("longLoop", argc, argv);
  const long rounds = program.number("rounds", 1000000000);
  const DeviceBuffer<unsigned> device(64);
  for (long round = 0; round < rounds; ++round) {
    spin<<<1, 64>>>(device.get(), 2000);
    const cudaError_t error = cudaDeviceSynchronize();
    if (error != cudaSuccess) {
      std::printf("ERROR %d %s\n", static_cast<int>(error), cudaGetErrorName(error));
      return 1;
    }
    if (round == 0) {
      std::printf("READY %d\n", static_cast<int>(getpid()));
      std::fflush(stdout);
    }
  }
  return program.finish();
}
