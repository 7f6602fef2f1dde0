// Many threads share one context: each allocates, copies, launches and frees in its own stream.
// SPDX-License-Identifier: Apache-2.0
//
// --threads N, --rounds N.
#include <atomic>
#include <thread>

#include "driver.hpp"

namespace {

// Returns how many of the rounds went wrong.
int work(const Device& device, int thread, int rounds, std::vector<int>* last) {
  CHECK(cuCtxSetCurrent(device.context()));
  CUstream stream = nullptr;
  CUevent event = nullptr;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CHECK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
  int wrong = 0;
  for (int round = 0; round < rounds; ++round) {
    const int count = 500 + 37 * thread + round;
    std::vector<int> values(static_cast<size_t>(count), thread + round);
    const size_t size_bytes = values.size() * sizeof(int);
    const CUdeviceptr memory = allocate(size_bytes);
    CHECK(cuMemcpyHtoDAsync(memory, values.data(), size_bytes, stream));
    for (int i = 0; i < 4; ++i) device.launch_step(memory, count, thread + 2, stream);
    CHECK(cuEventRecord(event, stream));
    CHECK(cuEventSynchronize(event));
    CHECK(cuMemcpyDtoHAsync(values.data(), memory, size_bytes, stream));
    CHECK(cuStreamSynchronize(stream));
    const int expected = stepped(thread + round, thread + 2, 4);
    if (values != std::vector<int>(static_cast<size_t>(count), expected)) ++wrong;
    CHECK(cuMemFree(memory));
    *last = values;
  }
  CHECK(cuEventDestroy(event));
  CHECK(cuStreamDestroy(stream));
  return wrong;
}

// What a thread that never made a context current is told of a pointer.
bool pointers_without_context(CUdeviceptr memory, const void* unknown) {
  bool right = false;
  std::thread([&] {
    CUcontext context = nullptr;
    CHECK(cuCtxGetCurrent(&context));
    unsigned type = 0;
    CHECK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, memory));
    unsigned other = 1;
    CUpointer_attribute attribute = CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
    void* out = &other;
    CHECK(cuPointerGetAttributes(1, &attribute, &out, reinterpret_cast<CUdeviceptr>(unknown)));
    right = context == nullptr && type == CU_MEMORYTYPE_DEVICE && other == 0;
  }).join();
  return right;
}

}  // namespace

int main(int argc, char** argv) {
  Program program("manyThreads", argc, argv);
  const int threads = static_cast<int>(program.number("threads", 12));
  const int rounds = static_cast<int>(program.number("rounds", 20));
  const Device device;
  std::atomic<int> wrong{0};
  std::vector<std::vector<int>> last(static_cast<size_t>(threads));
  std::vector<std::thread> running;
  for (int i = 0; i < threads; ++i) {
    running.emplace_back(
        [&, i] { wrong += work(device, i, rounds, &last[static_cast<size_t>(i)]); });
  }
  for (std::thread& thread : running) thread.join();
  program.expect(wrong == 0, "no thread sees another's values");
  for (const std::vector<int>& values : last) program.save(values);
  const CUdeviceptr memory = allocate(64);
  program.expect(pointers_without_context(memory, &last), "a pointer is known without a context");
  CHECK(cuMemFree(memory));
  return program.finish();
}
