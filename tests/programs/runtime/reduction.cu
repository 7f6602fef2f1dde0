// Sums, and finds minimum and maximum, with warp shuffles, votes and one value per block.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <climits>

#include "runtime.hpp"

constexpr int kBlock = 256;

struct Partial {
  int sum, smallest, largest, odd;
};

__device__ Partial combine(Partial a, Partial b) {
  return {a.sum + b.sum, min(a.smallest, b.smallest), max(a.largest, b.largest), a.odd + b.odd};
}

__device__ Partial reduce_warp(Partial mine) {
  for (int distance = 16; distance > 0; distance /= 2) {
    const Partial other = {__shfl_down_sync(0xffffffff, mine.sum, distance),
                           __shfl_xor_sync(0xffffffff, mine.smallest, distance),
                           __shfl_xor_sync(0xffffffff, mine.largest, distance), 0};
    mine = combine(mine, other);
  }
  return mine;
}

__global__ void reduce(const int* values, int count, Partial* partials) {
  __shared__ Partial of_warp[kBlock / 32];
  Partial mine = {0, INT_MAX, INT_MIN, 0};
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  // Whole warps take part in every round, so that the vote is one of all lanes.
  for (int base = blockIdx.x * kBlock; base < count; base += gridDim.x * kBlock) {
    const int i = base + threadIdx.x;
    const int value = i < count ? values[i] : 0;
    const unsigned odd = __ballot_sync(0xffffffff, i < count && value % 2 != 0);
    if (i < count) mine = combine(mine, {value, value, value, 0});
    if (lane == 0) mine.odd += __popc(odd);
  }
  const int odd = mine.odd;
  mine = reduce_warp(mine);
  mine.odd = odd;
  if (lane == 0) of_warp[warp] = mine;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < kBlock / 32; ++i) mine = combine(mine, of_warp[i]);
    partials[blockIdx.x] = mine;
  }
}

int main(int argc, char** argv) {
  Program program("reduction", argc, argv);
  constexpr int kCount = 100003, kBlocks = 7;
  Sequence sequence(3);
  std::vector<int> values(kCount);
  for (int& value : values) value = static_cast<int>(sequence.next() % 20001) - 10000;
  const DeviceBuffer<int> device_values(values);
  const DeviceBuffer<Partial> device_partials(kBlocks);
  reduce<<<kBlocks, kBlock>>>(device_values.get(), kCount, device_partials.get());
  CHECK(cudaGetLastError());
  const std::vector<Partial> partials = device_partials.download();

  Partial total = {0, INT_MAX, INT_MIN, 0};
  for (const Partial& partial : partials) {
    total = {total.sum + partial.sum, std::min(total.smallest, partial.smallest),
             std::max(total.largest, partial.largest), total.odd + partial.odd};
  }
  Partial expected = {0, INT_MAX, INT_MIN, 0};
  for (const int value : values) {
    expected = {expected.sum + value, std::min(expected.smallest, value),
                std::max(expected.largest, value), expected.odd + (value % 2 != 0)};
  }
  std::printf("sum %d, smallest %d, largest %d, odd %d\n", total.sum, total.smallest, total.largest,
              total.odd);
  program.expect(std::memcmp(&total, &expected, sizeof(total)) == 0, "the CPU finds the same");
  program.save(partials);
  return program.finish();
}
