// Two threads, each on its own default stream (built with --default-stream per-thread).
// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <thread>

#include "runtime.hpp"

__global__ void step(int* values, int count, int factor) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) values[i] = values[i] * factor + 1;
}

constexpr int kCount = 2000;
constexpr int kSteps = 8;

// The results go to pinned memory: a copy to pageable memory on the stream that is held would wait
// in the driver, and a driver may keep the other thread's copy waiting behind it.
static void work(int* device, int factor, int* out) {
  CHECK(cudaMemsetAsync(device, 0, kCount * sizeof(int)));
  for (int i = 0; i < kSteps; ++i) step<<<(kCount + 127) / 128, 128>>>(device, kCount, factor);
  CHECK(cudaGetLastError());
  CHECK(cudaMemcpyAsync(out, device, kCount * sizeof(int), cudaMemcpyDeviceToHost));
  CHECK(cudaStreamSynchronize(cudaStreamPerThread));
}

static std::atomic<bool> released{false};

static void CUDART_CB wait_for_release(void*) {
  while (!released.load()) std::this_thread::yield();
}

int main(int argc, char** argv) {
  Program program("perThreadStream", argc, argv);
  const DeviceBuffer<int> first(kCount);
  const DeviceBuffer<int> second(kCount);
  int* out[2] = {};
  for (int*& pinned : out) CHECK(cudaMallocHost(&pinned, kCount * sizeof(int)));

  // CUDA loads a kernel when it is first launched, and may wait for the whole device then.
  work(first.get(), 1, out[0]);

  // The first thread's default stream is held until the second thread is done: were it one stream,
  // or did one thread's wait hold up the other's launches, this would never end.
  std::thread held([&] {
    CHECK(cudaLaunchHostFunc(cudaStreamPerThread, wait_for_release, nullptr));
    work(first.get(), 2, out[0]);
  });
  std::thread free_to_go([&] {
    work(second.get(), 3, out[1]);
    released = true;
  });
  free_to_go.join();
  held.join();

  const int factors[] = {2, 3};
  for (int t = 0; t < 2; ++t) {
    int expected = 0;
    for (int i = 0; i < kSteps; ++i) expected = expected * factors[t] + 1;
    const std::vector<int> result(out[t], out[t] + kCount);
    program.expect(result == std::vector<int>(kCount, expected), "each thread has its own result");
    program.save(result);
  }
  return program.finish();
}
