// Counts bytes with atomics: per block in shared memory, then in global memory.
// SPDX-License-Identifier: Apache-2.0
#include "runtime.hpp"

constexpr int kBins = 256;

__global__ void count_bytes(const uint8_t* bytes, int count, unsigned* bins,
                            unsigned long long* total, unsigned* largest) {
  __shared__ unsigned local[kBins];
  for (int i = threadIdx.x; i < kBins; i += blockDim.x) local[i] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    atomicAdd(&local[bytes[i]], 1U);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kBins; i += blockDim.x) {
    if (local[i] == 0) continue;
    const unsigned before = atomicAdd(&bins[i], local[i]);
    atomicAdd(total, static_cast<unsigned long long>(local[i]));
    atomicMax(largest, before + local[i]);
  }
}

// A maximum of floats by compare-and-swap, as code without atomicMax for floats does it.
__global__ void largest_float(const uint8_t* bytes, int count, float* out) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    const float value = static_cast<float>(bytes[i]) * 0.5F;
    auto* address = reinterpret_cast<int*>(out);
    int old = *address;
    while (__int_as_float(old) < value) {
      const int seen = atomicCAS(address, old, __float_as_int(value));
      if (seen == old) break;
      old = seen;
    }
  }
}

int main(int argc, char** argv) {
  Program program("histogram", argc, argv);
  constexpr int kCount = 200001;
  Sequence sequence(4);
  std::vector<uint8_t> bytes(kCount);
  std::vector<unsigned> expected(kBins);
  for (uint8_t& byte : bytes) {
    // Few distinct values, so that the atomics meet.
    byte = static_cast<uint8_t>(sequence.next() % 37 * 5);
    ++expected[byte];
  }
  unsigned expected_largest = 0;
  for (const unsigned count : expected) {
    if (count > expected_largest) expected_largest = count;
  }
  const DeviceBuffer<uint8_t> device_bytes(bytes);
  const DeviceBuffer<unsigned> bins(std::vector<unsigned>(kBins, 0U));
  const DeviceBuffer<unsigned long long> total(std::vector<unsigned long long>(1, 0ULL));
  const DeviceBuffer<unsigned> largest(std::vector<unsigned>(1, 0U));
  const DeviceBuffer<float> largest_half(std::vector<float>(1, 0.0F));
  count_bytes<<<12, 192>>>(device_bytes.get(), kCount, bins.get(), total.get(), largest.get());
  CHECK(cudaGetLastError());
  largest_float<<<8, 128>>>(device_bytes.get(), kCount, largest_half.get());
  CHECK(cudaGetLastError());
  program.expect(bins.download() == expected, "every bin is right");
  program.expect(total.download()[0] == kCount, "the bins add up to all bytes");
  program.expect(largest.download()[0] == expected_largest, "the largest bin is right");
  program.expect(largest_half.download()[0] == 36 * 5 * 0.5F, "the largest value is right");
  program.save(bins.download());
  program.save(total.download());
  return program.finish();
}
