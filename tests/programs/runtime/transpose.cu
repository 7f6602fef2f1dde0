// Transposes a matrix through a padded shared-memory tile, and copies pitched rows back.
// SPDX-License-Identifier: Apache-2.0
#include "runtime.hpp"

constexpr int kTile = 32;
constexpr int kRowsPerBlock = 8;

__global__ void transpose(double* out, size_t out_pitch, const double* in, size_t in_pitch,
                          int width, int height) {
  __shared__ double tile[kTile][kTile + 1];
  int x = blockIdx.x * kTile + threadIdx.x;
  int y = blockIdx.y * kTile + threadIdx.y;
  for (int j = 0; j < kTile; j += kRowsPerBlock) {
    if (x < width && y + j < height) {
      tile[threadIdx.y + j][threadIdx.x] = in[(y + j) * in_pitch + x];
    }
  }
  __syncthreads();
  x = blockIdx.y * kTile + threadIdx.x;
  y = blockIdx.x * kTile + threadIdx.y;
  for (int j = 0; j < kTile; j += kRowsPerBlock) {
    if (x < height && y + j < width) {
      out[(y + j) * out_pitch + x] = tile[threadIdx.x][threadIdx.y + j];
    }
  }
}

int main(int argc, char** argv) {
  Program program("transpose", argc, argv);
  constexpr int kWidth = 173, kHeight = 251;
  std::vector<double> in(kWidth * kHeight);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<double>(i) + 0.25;

  double* device_in = nullptr;
  double* device_out = nullptr;
  size_t in_pitch = 0;
  size_t out_pitch = 0;
  CHECK(cudaMallocPitch(&device_in, &in_pitch, kWidth * sizeof(double), kHeight));
  CHECK(cudaMallocPitch(&device_out, &out_pitch, kHeight * sizeof(double), kWidth));
  CHECK(cudaMemset2D(device_out, out_pitch, 0xff, kHeight * sizeof(double), kWidth));
  CHECK(cudaMemcpy2D(device_in, in_pitch, in.data(), kWidth * sizeof(double),
                     kWidth * sizeof(double), kHeight, cudaMemcpyHostToDevice));
  const dim3 grid((kWidth + kTile - 1) / kTile, (kHeight + kTile - 1) / kTile);
  transpose<<<grid, dim3(kTile, kRowsPerBlock)>>>(device_out, out_pitch / sizeof(double), device_in,
                                                  in_pitch / sizeof(double), kWidth, kHeight);
  CHECK(cudaGetLastError());
  std::vector<double> out(kWidth * kHeight);
  CHECK(cudaMemcpy2D(out.data(), kHeight * sizeof(double), device_out, out_pitch,
                     kHeight * sizeof(double), kWidth, cudaMemcpyDeviceToHost));
  bool right = true;
  for (int y = 0; y < kHeight; ++y) {
    for (int x = 0; x < kWidth; ++x) right = right && out[x * kHeight + y] == in[y * kWidth + x];
  }
  program.expect(right, "rows have become columns");
  program.save(out);
  CHECK(cudaFree(device_in));
  CHECK(cudaFree(device_out));
  return program.finish();
}
