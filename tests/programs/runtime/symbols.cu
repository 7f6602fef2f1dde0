// Constant memory and device globals: initial values, symbol copies both ways, addresses and sizes.
// SPDX-License-Identifier: Apache-2.0
#include "runtime.hpp"

constexpr int kCount = 64;

__constant__ float coefficients[kCount];
__constant__ int primes[] = {2, 3, 5, 7, 11, 13, 17, 19};
__device__ unsigned counter = 40;
__device__ int table[kCount];
__device__ int* pointer_to_table = &table[3];

struct Settings {
  double scale;
  char name[8];
  int offsets[3];
};
__constant__ Settings settings = {2.5, "seven", {1, -2, 3}};

__global__ void evaluate(float* out) {
  const int i = threadIdx.x;
  float value = coefficients[i] * static_cast<float>(settings.scale);
  value += static_cast<float>(primes[i % 8] + settings.offsets[i % 3] + settings.name[i % 5]);
  out[i] = value;
  table[i] = i * i;
  atomicAdd(&counter, 1U);
  __syncthreads();
  if (i == 0) *pointer_to_table += 1000;
}

int main(int argc, char** argv) {
  Program program("symbols", argc, argv);
  std::vector<float> host(kCount);
  for (int i = 0; i < kCount; ++i) host[i] = static_cast<float>(i) / 4;
  CHECK(cudaMemcpyToSymbol(coefficients, host.data(), kCount * sizeof(float)));
  const int last = 23;
  CHECK(cudaMemcpyToSymbol(primes, &last, sizeof(last), 7 * sizeof(int)));
  const DeviceBuffer<float> device(kCount);
  evaluate<<<1, kCount>>>(device.get());
  CHECK(cudaGetLastError());
  const std::vector<float> out = device.download();

  const int expected_primes[] = {2, 3, 5, 7, 11, 13, 17, 23};
  const int offsets[] = {1, -2, 3};
  bool right = true;
  for (int i = 0; i < kCount; ++i) {
    const float expected = host[i] * 2.5F + static_cast<float>(expected_primes[i % 8] +
                                                               offsets[i % 3] + "seven"[i % 5]);
    right = right && out[i] == expected;
  }
  program.expect(right, "kernels read constants as they were set");

  unsigned count = 0;
  CHECK(cudaMemcpyFromSymbol(&count, counter, sizeof(count)));
  program.expect(count == 40 + kCount, "a global keeps its initial value and what was added");
  std::vector<int> squares(kCount);
  void* address = nullptr;
  size_t size_bytes = 0;
  CHECK(cudaGetSymbolAddress(&address, table));
  CHECK(cudaGetSymbolSize(&size_bytes, table));
  program.expect(size_bytes == kCount * sizeof(int), "a global has its size");
  CHECK(cudaMemcpy(squares.data(), address, size_bytes, cudaMemcpyDeviceToHost));
  right = true;
  for (int i = 0; i < kCount; ++i) right = right && squares[i] == i * i + (i == 3 ? 1000 : 0);
  program.expect(right, "a global's address names what kernels write");
  program.save(out);
  program.save(squares);
  return program.finish();
}
