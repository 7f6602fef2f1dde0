// Two large copies on two streams, each followed by work that waits for the other's copy.
// SPDX-License-Identifier: Apache-2.0
//
// --mib N: the size of each copy, larger than any staging buffer.
#include "driver.hpp"

int main(int argc, char** argv) {
  Program program("orderCrossedCopies", argc, argv);
  const Device device;
  const auto size_bytes = static_cast<size_t>(program.number("mib", 160)) << 20U;
  const int count = static_cast<int>(size_bytes / sizeof(int));
  // The kernel adds the end of one copy to the end of the other: what arrives last.
  constexpr int kTail = 1 << 16;
  const CUdeviceptr tail_offset = size_bytes - kTail * sizeof(int);

  int* host[2] = {};
  CUdeviceptr memory[2] = {};
  CUdeviceptr sum[2] = {};
  CUstream stream[2] = {};
  CUevent copied[2] = {};
  for (int i = 0; i < 2; ++i) {
    CHECK(cuMemHostAlloc(reinterpret_cast<void**>(&host[i]), size_bytes, 0));
    Sequence sequence(6 + static_cast<uint32_t>(i));
    for (int j = 0; j < count; ++j) host[i][j] = static_cast<int>(sequence.next() >> 2);
    memory[i] = allocate(size_bytes);
    sum[i] = allocate(kTail * sizeof(int));
    CHECK(cuStreamCreate(&stream[i], CU_STREAM_NON_BLOCKING));
    CHECK(cuEventCreate(&copied[i], CU_EVENT_DISABLE_TIMING));
  }
  for (int i = 0; i < 2; ++i) {
    CHECK(cuMemcpyHtoDAsync(memory[i], host[i], size_bytes, stream[i]));
    CHECK(cuEventRecord(copied[i], stream[i]));
  }
  for (int i = 0; i < 2; ++i) {
    CHECK(cuStreamWaitEvent(stream[i], copied[1 - i], 0));
    device.launch_add(memory[0] + tail_offset, memory[1] + tail_offset, sum[i], kTail, stream[i]);
  }
  for (int i = 0; i < 2; ++i) CHECK(cuStreamSynchronize(stream[i]));
  std::vector<int> expected(kTail);
  for (int j = 0; j < kTail; ++j) {
    expected[j] = host[0][count - kTail + j] + host[1][count - kTail + j];
  }
  for (int i = 0; i < 2; ++i) {
    program.expect(download(sum[i], kTail) == expected, "work waits for the other stream's copy");
    const std::vector<int> back = download(memory[i], static_cast<size_t>(count));
    program.expect(std::memcmp(back.data(), host[i], size_bytes) == 0, "each copy is whole");
  }
  program.save(expected);
  for (int i = 0; i < 2; ++i) {
    CHECK(cuEventDestroy(copied[i]));
    CHECK(cuStreamDestroy(stream[i]));
    CHECK(cuMemFree(sum[i]));
    CHECK(cuMemFree(memory[i]));
    CHECK(cuMemFreeHost(host[i]));
  }
  return program.finish();
}
