// Variables that program and kernels both use by their names.
// SPDX-License-Identifier: Apache-2.0
//
// --refused-on N: there is a device of that number, on which a kernel that uses them is refused.
#include "runtime.hpp"

namespace {

constexpr int kCount = 3000;

struct Settings {
  int factor = 3;
  int launches = 0;
  int* result = nullptr;
};

__managed__ int table[kCount] = {1, 2, 3};
__managed__ Settings settings;
__device__ int own = 5;

__global__ void fill() {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < kCount) table[i] = table[i] * settings.factor + own;
  if (i == 0) *settings.result = ++settings.launches;
}

__global__ void add(const int* from, int* to) { to[threadIdx.x] += from[threadIdx.x]; }

}  // namespace

int main(int argc, char** argv) {
  Program program("managedVariables", argc, argv);
  program.expect(table[0] == 1 && table[2] == 3 && table[3] == 0 && settings.factor == 3,
                 "they begin as the program says");
  int* result = nullptr;
  CHECK(cudaMallocManaged(&result, sizeof *result));
  settings.result = result;
  int expected = 1;
  for (int round = 1; round <= 4; ++round) {
    settings.factor = round;
    expected = expected * round + 5;
    fill<<<(kCount + 255) / 256, 256>>>();
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    program.expect(table[0] == expected, "program and kernels take turns");
    program.expect(settings.launches == round && *result == round,
                   "an address within leads a kernel on");
  }
  program.save(table, sizeof table);

  // They are memory like any other: for copies, and as what a kernel is given the address of.
  std::vector<int> host(kCount, 2);
  CHECK(cudaMemcpy(table, host.data(), sizeof table, cudaMemcpyDefault));
  program.expect(table[kCount - 1] == 2, "they are copied to");
  add<<<1, 256>>>(table, table + 1000);
  CHECK(cudaMemcpy(host.data(), table, sizeof table, cudaMemcpyDefault));
  program.expect(host[1000] == 4 && host[1255] == 4 && host[1256] == 2, "and from");
  CHECK(cudaMemset(table, 0, sizeof table));
  CHECK(cudaDeviceSynchronize());
  program.expect(table[0] == 0 && table[1000] == 0, "and set");
  program.expect(cudaFree(table) == cudaErrorInvalidValue, "but not freed");
  cudaGetLastError();
  program.expect(table[0] == 0, "and are still there");
  program.save(host);
  CHECK(cudaFree(result));

  if (const long device = program.number("refused-on", 0); device != 0) {
    CHECK(cudaSetDevice(static_cast<int>(device)));
    fill<<<1, 1>>>();
    program.expect(cudaGetLastError() == cudaErrorInvalidResourceHandle,
                   "a second device does not get a variable of its own unnoticed");
  }
  return program.finish();
}
