// Copies of plain memory: every size and place, by many threads, behind work, and as contexts end.
// SPDX-License-Identifier: Apache-2.0
#include <thread>

#include "driver.hpp"

namespace {

using Bytes = std::vector<uint8_t>;

Bytes noise(size_t count, uint32_t seed) {
  Bytes bytes(count);
  Sequence sequence(seed);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(sequence.next());
  return bytes;
}

// There and back, from and to odd places; nothing beside the copy changes.
void sizes(Program& program) {
  constexpr size_t kLargest = (9 << 20) + 12345;
  const CUdeviceptr memory = allocate(kLargest + 64);
  for (const size_t size : {size_t{1}, size_t{65536}, size_t{65537}, size_t{300000},
                            size_t{1} << 20, (size_t{4} << 20) + 1, kLargest}) {
    const Bytes sent = noise(size + 3, static_cast<uint32_t>(size));
    CHECK(cuMemsetD8(memory, 7, size + 64));
    CHECK(cuMemcpyHtoD(memory + 5, sent.data() + 3, size));
    Bytes back(size + 2, 9);
    CHECK(cuMemcpyDtoH(back.data() + 1, memory + 5, size));
    program.expect(std::equal(sent.begin() + 3, sent.end(), back.begin() + 1),
                   "what was copied there comes back");
    program.expect(back.front() == 9 && back.back() == 9, "and nothing beside it");
    Bytes beside(8);
    CHECK(cuMemcpyDtoH(beside.data(), memory + 5 + size, beside.size()));
    program.expect(beside == Bytes(8, 7), "nor was anything beside it written");
    program.save(back);
  }
  CHECK(cuMemFree(memory));
}

// A copy takes the memory as it is when it is called, whatever waits before it in its stream.
void behind_work(Program& program, const Device& device) {
  constexpr int kCount = 3 << 20;
  const CUdeviceptr values = upload(std::vector<int>(kCount, 1));
  CUstream stream = nullptr;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  std::vector<int> sent(kCount), back(kCount);
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 20; ++i) device.launch_step(values, kCount, 3, stream);
    std::fill(sent.begin(), sent.end(), round);
    CHECK(cuMemcpyHtoDAsync(values, sent.data(), kCount * sizeof(int), stream));
    std::fill(sent.begin(), sent.end(), -1);
    device.launch_step(values, kCount, 5, stream);
    CHECK(cuMemcpyDtoHAsync(back.data(), values, kCount * sizeof(int), stream));
    CHECK(cuStreamSynchronize(stream));
    program.expect(back == std::vector<int>(kCount, round * 5 + 1), "copies keep a stream's order");
  }
  CHECK(cuStreamDestroy(stream));
  CHECK(cuMemFree(values));
}

void by_many_threads(Program& program, const Device& device) {
  constexpr int kThreads = 8;
  std::vector<int> wrong(kThreads, 0);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      CHECK(cuCtxSetCurrent(device.context()));
      CUstream stream = nullptr;
      CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
      const size_t size = (size_t{1} << 20) + 4321 * static_cast<size_t>(thread);
      const CUdeviceptr memory = allocate(size);
      for (uint32_t round = 0; round < 6; ++round) {
        const Bytes sent = noise(size, round * 16 + static_cast<uint32_t>(thread));
        Bytes back(size);
        CHECK(cuMemcpyHtoDAsync(memory, sent.data(), size, stream));
        CHECK(cuMemcpyDtoHAsync(back.data(), memory, size, stream));
        CHECK(cuStreamSynchronize(stream));
        wrong[static_cast<size_t>(thread)] += back == sent ? 0 : 1;
      }
      CHECK(cuMemFree(memory));
      CHECK(cuStreamDestroy(stream));
    });
  }
  for (std::thread& thread : threads) thread.join();
  program.expect(wrong == std::vector<int>(kThreads, 0), "each thread gets its own bytes");
}

// A context ends with a copy under way; the next one copies as the one before.
void as_contexts_end(Program& program, const Device& device) {
  for (uint32_t round = 0; round < 3; ++round) {
    CUcontext context = nullptr;
    CHECK(cuCtxCreate(&context, nullptr, 0, device.device()));
    const Bytes sent = noise(2 << 20, round);
    Bytes back(sent.size());
    const CUdeviceptr memory = allocate(sent.size());
    CHECK(cuMemcpyHtoD(memory, sent.data(), sent.size()));
    CHECK(cuMemcpyDtoH(back.data(), memory, back.size()));
    program.expect(back == sent, "a context of the program's own copies");
    CUstream stream = nullptr;
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CHECK(cuMemcpyHtoDAsync(memory, sent.data(), sent.size(), stream));
    CHECK(cuCtxDestroy(context));
    CHECK(cuCtxSetCurrent(device.context()));
    const CUdeviceptr own = upload(sent.data(), sent.size());
    std::fill(back.begin(), back.end(), uint8_t{0});
    CHECK(cuMemcpyDtoH(back.data(), own, back.size()));
    program.expect(back == sent, "and so does the device's primary one after it");
    CHECK(cuMemFree(own));
  }
}

}  // namespace

int main(int argc, char** argv) {
  Program program("plainCopies", argc, argv);
  const Device device;
  sizes(program);
  behind_work(program, device);
  by_many_threads(program, device);
  as_contexts_end(program, device);
  return program.finish();
}
