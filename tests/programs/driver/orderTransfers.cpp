// A batch arrives on one stream while launches go on in another, from another thread.
// SPDX-License-Identifier: Apache-2.0
//
// --mib N: the size of the batch.
#include <atomic>
#include <thread>

#include "driver.hpp"

int main(int argc, char** argv) {
  Program program("orderTransfers", argc, argv);
  const Device device;
  const auto batch_bytes = static_cast<size_t>(program.number("mib", 96)) << 20U;
  const int count = static_cast<int>(batch_bytes / sizeof(int));
  constexpr int kSmall = 4096;
  constexpr int kBatches = 3;
  std::vector<int> batch(static_cast<size_t>(count));
  Sequence sequence(5);
  for (int& value : batch) value = static_cast<int>(sequence.next());
  const CUdeviceptr arriving = allocate(batch_bytes);
  const CUdeviceptr working = upload(std::vector<int>(kSmall, 1));
  CUstream copies = nullptr;
  CUstream launches = nullptr;
  CHECK(cuStreamCreate(&copies, CU_STREAM_NON_BLOCKING));
  CHECK(cuStreamCreate(&launches, CU_STREAM_NON_BLOCKING));

  std::atomic<bool> arrived{false};
  std::atomic<int> launched{0};
  std::thread worker([&] {
    CHECK(cuCtxSetCurrent(device.context()));
    // At least some launches, and more for as long as batches arrive.
    while (!arrived.load() || launched.load() < 100) {
      device.launch_step(working, kSmall, 3, launches);
      if (launched.fetch_add(1) % 16 == 0) CHECK(cuStreamSynchronize(launches));
    }
  });
  for (int i = 0; i < kBatches; ++i) {
    batch[0] = i;
    CHECK(cuMemcpyHtoDAsync(arriving, batch.data(), batch_bytes, copies));
    CHECK(cuStreamSynchronize(copies));
  }
  arrived = true;
  worker.join();
  CHECK(cuStreamSynchronize(launches));
  program.expect(download(arriving, static_cast<size_t>(count)) == batch, "the batch is whole");
  program.expect(
      download(working, kSmall) == std::vector<int>(kSmall, stepped(1, 3, launched.load())),
      "no launch was lost or done twice");
  program.save(batch.data(), 4096);
  CHECK(cuStreamDestroy(copies));
  CHECK(cuStreamDestroy(launches));
  CHECK(cuMemFree(arriving));
  CHECK(cuMemFree(working));
  return program.finish();
}
