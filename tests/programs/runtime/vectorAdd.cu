// Adds two vectors whose length is no multiple of the block.
// SPDX-License-Identifier: Apache-2.0
#include "runtime.hpp"

__global__ void add(const float* a, const float* b, float* c, int count) {
  const int i = blockDim.x * blockIdx.x + threadIdx.x;
  if (i < count) c[i] = a[i] + b[i];
}

int main(int argc, char** argv) {
  Program program("vectorAdd", argc, argv);
  const int count = static_cast<int>(program.number("count", 50000));
  Sequence sequence(2);
  std::vector<float> a(count);
  std::vector<float> b(count);
  for (float& value : a) value = sequence.fraction();
  for (float& value : b) value = sequence.fraction();
  const DeviceBuffer<float> device_a(a);
  const DeviceBuffer<float> device_b(b);
  const DeviceBuffer<float> device_c(count);
  add<<<(count + 255) / 256, 256>>>(device_a.get(), device_b.get(), device_c.get(), count);
  CHECK(cudaGetLastError());
  const std::vector<float> c = device_c.download();
  bool right = true;
  for (int i = 0; i < count; ++i) right = right && c[i] == a[i] + b[i];
  program.expect(right, "every element is the sum");
  program.save(c);
  return program.finish();
}
