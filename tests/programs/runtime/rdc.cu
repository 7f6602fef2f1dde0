// Calls a device function and uses a device global of another file (built with -rdc=true).
// SPDX-License-Identifier: Apache-2.0
#include "rdc.hpp"

__global__ void evaluate(int* out, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] = polynomial(i) + shared_offset;
}

int main(int argc, char** argv) {
  Program program("rdc", argc, argv);
  constexpr int kCount = 1000;
  const int offset = 17;
  CHECK(cudaMemcpyToSymbol(shared_offset, &offset, sizeof(offset)));
  const DeviceBuffer<int> device(kCount);
  evaluate<<<(kCount + 127) / 128, 128>>>(device.get(), kCount);
  CHECK(cudaGetLastError());
  const std::vector<int> first = device.download();
  launch_from_other_file(device.get(), kCount);
  const std::vector<int> second = device.download();
  bool right = true;
  for (int i = 0; i < kCount; ++i) {
    const int expected = 3 * i * i - 5 * i + 7 + offset;
    right = right && first[i] == expected && second[i] == -expected;
  }
  program.expect(right, "both files' kernels see the same function and global");
  program.save(second);
  return program.finish();
}
