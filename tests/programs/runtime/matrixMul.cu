// Multiplies a 320x320 by a 320x640 matrix with shared-memory tiles, as CUDA's own sample does.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "runtime.hpp"

constexpr int kTile = 32;

__global__ void multiply(float* c, const float* a, const float* b, int width_a, int width_b) {
  __shared__ float tile_a[kTile][kTile];
  __shared__ float tile_b[kTile][kTile];
  const int row = blockIdx.y * kTile + threadIdx.y;
  const int column = blockIdx.x * kTile + threadIdx.x;
  float sum = 0;
  for (int start = 0; start < width_a; start += kTile) {
    tile_a[threadIdx.y][threadIdx.x] = a[row * width_a + start + threadIdx.x];
    tile_b[threadIdx.y][threadIdx.x] = b[(start + threadIdx.y) * width_b + column];
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kTile; ++k) sum += tile_a[threadIdx.y][k] * tile_b[k][threadIdx.x];
    __syncthreads();
  }
  c[row * width_b + column] = sum;
}

int main(int argc, char** argv) {
  Program program("matrixMul", argc, argv);
  constexpr int kHeightA = 320, kWidthA = 320, kWidthB = 640;
  const long iterations = program.number("iterations", 3);
  std::printf("MatrixA(%d,%d), MatrixB(%d,%d)\n", kWidthA, kHeightA, kWidthB, kWidthA);

  Sequence sequence(1);
  std::vector<float> a(kHeightA * kWidthA);
  std::vector<float> b(kWidthA * kWidthB);
  for (float& value : a) value = sequence.fraction();
  for (float& value : b) value = sequence.fraction();
  const DeviceBuffer<float> device_a(a);
  const DeviceBuffer<float> device_b(b);
  const DeviceBuffer<float> device_c(kHeightA * kWidthB);

  const dim3 block(kTile, kTile);
  const dim3 grid(kWidthB / kTile, kHeightA / kTile);
  cudaStream_t stream;
  cudaEvent_t begin, end;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK(cudaEventCreate(&begin));
  CHECK(cudaEventCreate(&end));
  multiply<<<grid, block, 0, stream>>>(device_c.get(), device_a.get(), device_b.get(), kWidthA,
                                       kWidthB);
  CHECK(cudaGetLastError());
  CHECK(cudaStreamSynchronize(stream));
  CHECK(cudaEventRecord(begin, stream));
  for (long i = 0; i < iterations; ++i) {
    multiply<<<grid, block, 0, stream>>>(device_c.get(), device_a.get(), device_b.get(), kWidthA,
                                         kWidthB);
  }
  CHECK(cudaGetLastError());
  CHECK(cudaEventRecord(end, stream));
  CHECK(cudaEventSynchronize(end));
  float milliseconds = 0;
  CHECK(cudaEventElapsedTime(&milliseconds, begin, end));

  const double operations = 2.0 * kHeightA * kWidthA * kWidthB;
  const double each = iterations > 0 ? milliseconds / static_cast<double>(iterations) : 0;
  std::printf("Performance= %.2f GFlop/s, Time= %.3f msec, Size= %.0f Ops\n",
              each > 0 ? operations / each / 1e6 : 0.0, each, operations);

  const std::vector<float> c = device_c.download();
  double worst = 0;
  for (int row = 0; row < kHeightA; ++row) {
    for (int column = 0; column < kWidthB; ++column) {
      double expected = 0;
      for (int k = 0; k < kWidthA; ++k) {
        expected += static_cast<double>(a[row * kWidthA + k]) * b[k * kWidthB + column];
      }
      worst = std::fmax(worst, std::fabs(c[row * kWidthB + column] - expected) / expected);
    }
  }
  program.expect(worst < 1e-5, "every element is within 1e-5 of the CPU's");
  program.save(c);
  CHECK(cudaEventDestroy(begin));
  CHECK(cudaEventDestroy(end));
  CHECK(cudaStreamDestroy(stream));
  return program.finish();
}
