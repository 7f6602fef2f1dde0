// Uses shared memory whose size the launch gives, at first within the usual limit, then beyond it.
// SPDX-License-Identifier: Apache-2.0
#include "runtime.hpp"

// Reverses each block's piece.
__global__ void reverse(int* values, int per_block) {
  extern __shared__ int piece[];
  int* mine = values + static_cast<size_t>(blockIdx.x) * per_block;
  for (int i = threadIdx.x; i < per_block; i += blockDim.x) piece[i] = mine[i];
  __syncthreads();
  for (int i = threadIdx.x; i < per_block; i += blockDim.x) mine[i] = piece[per_block - 1 - i];
}

static bool run(Program& program, int per_block) {
  constexpr int kBlocks = 5;
  std::vector<int> values(static_cast<size_t>(kBlocks) * per_block);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int>(i);
  const DeviceBuffer<int> device(values);
  reverse<<<kBlocks, 96, per_block * sizeof(int)>>>(device.get(), per_block);
  if (cudaGetLastError() != cudaSuccess) return false;
  const std::vector<int> out = device.download();
  bool right = true;
  for (int block = 0; block < kBlocks; ++block) {
    for (int i = 0; i < per_block; ++i) {
      right = right && out[block * per_block + i] == block * per_block + per_block - 1 - i;
    }
  }
  program.expect(right, "every piece is reversed");
  program.save(out);
  return true;
}

int main(int argc, char** argv) {
  Program program("dynamicShared", argc, argv);
  constexpr int kBeyondBytes = 64 * 1024;
  program.expect(run(program, 1000), "4 KB of shared memory are granted");
  program.expect(!run(program, kBeyondBytes / 4), "64 KiB are refused until they are asked for");
  int most = 0;
  CHECK(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  if (most >= kBeyondBytes) {
    CHECK(cudaFuncSetAttribute(reverse, cudaFuncAttributeMaxDynamicSharedMemorySize, kBeyondBytes));
    program.expect(run(program, kBeyondBytes / 4), "64 KiB are granted after that");
  }
  return program.finish();
}
