// Prints where memory of each kind lies, as the program sees it: what the driver places itself has
// to miss the client's own mappings. SPDX-License-Identifier: Apache-2.0
#include <cstdio>

__device__ int global_word = 7;
__constant__ int constant_word = 8;

__global__ void heap_address(unsigned long long* out) {
  void* block = malloc(64);
  out[0] = reinterpret_cast<unsigned long long>(block);
  out[1] = static_cast<unsigned long long>(global_word + constant_word);
  free(block);
}

static int check(cudaError_t rc, const char* what) {
  if (rc != cudaSuccess) std::printf("%-16s %s\n", what, cudaGetErrorString(rc));
  return rc == cudaSuccess;
}

int main() {
  void* linear = nullptr;
  void* pool = nullptr;
  void* pinned = nullptr;
  void* symbol = nullptr;
  unsigned long long heap[2] = {0, 0};
  unsigned long long* result = nullptr;
  if (check(cudaMalloc(&linear, 1 << 20), "cudaMalloc"))
    std::printf("%-16s %p\n", "cudaMalloc", linear);
  if (check(cudaMallocAsync(&pool, 1 << 20, 0), "cudaMallocAsync")) {
    std::printf("%-16s %p\n", "cudaMallocAsync", pool);
  }
  if (check(cudaHostAlloc(&pinned, 1 << 20, 0), "cudaHostAlloc")) {
    std::printf("%-16s %p\n", "cudaHostAlloc", pinned);
  }
  if (check(cudaGetSymbolAddress(&symbol, global_word), "__device__")) {
    std::printf("%-16s %p\n", "__device__", symbol);
  }
  if (check(cudaGetSymbolAddress(&symbol, constant_word), "__constant__")) {
    std::printf("%-16s %p\n", "__constant__", symbol);
  }
  cudaMalloc(&result, sizeof heap);
  heap_address<<<1, 1>>>(result);
  if (check(cudaMemcpy(heap, result, sizeof heap, cudaMemcpyDeviceToHost), "device malloc")) {
    std::printf("%-16s 0x%llx\n", "device malloc", heap[0]);
  }
  int local = 0;
  std::printf("%-16s %p\n%-16s %p\n", "host code", reinterpret_cast<void*>(&check), "host stack",
              static_cast<void*>(&local));
  return heap[1] == 15 ? 0 : 1;
}
