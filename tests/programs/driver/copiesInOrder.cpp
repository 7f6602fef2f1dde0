// Copies of plain memory in the order of their streams, as Outboard promises it: behind work that
// waits they do not hold up the program, and each is one operation, whoever else uses the stream.
// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <atomic>
#include <thread>

#include "driver.hpp"

namespace {

void behind_work_that_waits(Program& program) {
  constexpr int kStreams = 7;
  constexpr int kCount = 100000;
  const CUdeviceptr gate = upload(std::vector<int>(1, 0));
  std::array<CUstream, kStreams> streams{};
  std::array<CUdeviceptr, kStreams> memory{};
  std::vector<int> sent(kCount);
  for (int i = 0; i < kStreams; ++i) {
    CHECK(cuStreamCreate(&streams[i], CU_STREAM_NON_BLOCKING));
    memory[i] = upload(std::vector<int>(kCount, -1));
    CHECK(cuStreamWaitValue32(streams[i], gate, 1, CU_STREAM_WAIT_VALUE_GEQ));
    for (int part = 0; part < 2; ++part) {
      std::fill(sent.begin(), sent.end(), 10 * i + part);
      CHECK(cuMemcpyHtoDAsync(memory[i], sent.data(), kCount * sizeof(int), streams[i]));
    }
  }
  program.expect(cuStreamQuery(streams[0]) == CUDA_ERROR_NOT_READY, "the copies wait");
  CUstream last = nullptr;
  CHECK(cuStreamCreate(&last, CU_STREAM_NON_BLOCKING));
  CHECK(cuStreamWriteValue32(last, gate, 1, CU_STREAM_WRITE_VALUE_DEFAULT));
  for (int i = 0; i < kStreams; ++i) {
    CHECK(cuStreamSynchronize(streams[i]));
    const std::vector<int> back = download(memory[i], kCount);
    program.expect(back == std::vector<int>(kCount, 10 * i + 1), "each has its bytes, in order");
    program.save(back.data(), 4096);
    CHECK(cuStreamDestroy(streams[i]));
    CHECK(cuMemFree(memory[i]));
  }
  CHECK(cuStreamDestroy(last));
  CHECK(cuMemFree(gate));
}

void beside_another_thread(Program& program, const Device& device) {
  constexpr size_t kCount = 2 << 20;
  const CUdeviceptr memory = allocate(kCount * sizeof(int));
  CUstream stream = nullptr;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CHECK(cuMemsetD32Async(memory, 0, kCount, stream));
  std::atomic<bool> ended{false};
  std::thread other([&] {
    CHECK(cuCtxSetCurrent(device.context()));
    for (unsigned value = 1; !ended; ++value) {
      CHECK(cuMemsetD32Async(memory, value, kCount, stream));
      CHECK(cuStreamSynchronize(stream));
    }
  });
  std::vector<int> back(kCount);
  for (int round = 0; round < 20; ++round) {
    CHECK(cuMemcpyDtoHAsync(back.data(), memory, kCount * sizeof(int), stream));
    CHECK(cuStreamSynchronize(stream));
    program.expect(back == std::vector<int>(kCount, back[0]), "nothing comes into a copy");
  }
  ended = true;
  other.join();
  CHECK(cuStreamDestroy(stream));
  CHECK(cuMemFree(memory));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("copiesInOrder", argc, argv);
  const Device device;
  behind_work_that_waits(program);
  beside_another_thread(program, device);
  return program.finish();
}
