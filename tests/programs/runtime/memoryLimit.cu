// Says how much memory the device has, tries to get more than that, and can still use what there
// is. SPDX-License-Identifier: Apache-2.0
//
// --hold-mib N allocates N MiB, prints HOLDING and waits for a line (or the end) of stdin.
#include "runtime.hpp"

int main(int argc, char** argv) {
  Program program("memoryLimit", argc, argv);
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, 0));
  std::printf("total_bytes %zu\nfree_bytes %zu\nproperties_bytes %zu\n", total_bytes, free_bytes,
              properties.totalGlobalMem);
  std::fflush(stdout);
  program.expect(free_bytes <= total_bytes, "no more is free than there is");
  program.expect(properties.totalGlobalMem == total_bytes, "properties and memory info agree");

  const long hold_mib = program.number("hold-mib", 0);
  if (hold_mib > 0) {
    void* held = nullptr;
    CHECK(cudaMalloc(&held, static_cast<size_t>(hold_mib) << 20U));
    std::printf("HOLDING %ld\n", hold_mib);
    std::fflush(stdout);
    (void)std::getchar();
    CHECK(cudaFree(held));
    return program.finish();
  }
  void* memory = nullptr;
  program.expect(cudaMalloc(&memory, total_bytes + 1) == cudaErrorMemoryAllocation,
                 "more than the total is refused (2)");
  program.expect(cudaGetLastError() == cudaErrorMemoryAllocation, "the refusal is the last error");
  program.expect(cudaMalloc(&memory, free_bytes / 2) == cudaSuccess,
                 "half of what is free is there");
  // Its ends are really there; all of it would take long on a device that is a CPU.
  constexpr size_t kEndBytes = 1 << 20;
  CHECK(cudaMemset(memory, 1, kEndBytes));
  CHECK(cudaMemset(static_cast<char*>(memory) + free_bytes / 2 - kEndBytes, 2, kEndBytes));
  void* second = nullptr;
  program.expect(cudaMalloc(&second, free_bytes / 4 * 3) == cudaErrorMemoryAllocation,
                 "but not another three quarters");
  cudaGetLastError();
  CHECK(cudaFree(memory));
  program.expect(cudaMalloc(&memory, free_bytes / 4 * 3) == cudaSuccess,
                 "what is freed can be had again");
  CHECK(cudaFree(memory));
  return program.finish();
}
