// A host function holds a stream with 5,000 launches behind it, until a second thread releases it.
// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <thread>

#include "driver.hpp"

namespace {

std::atomic<bool> released{false};
std::atomic<bool> held{false};

void CUDA_CB hold(void*) {
  held = true;
  while (!released.load()) std::this_thread::yield();
}

}  // namespace

int main(int argc, char** argv) {
  Program program("orderHostFunction", argc, argv);
  const int launches = static_cast<int>(program.number("launches", 5000));
  const Device device;
  constexpr int kCount = 128;
  const CUdeviceptr behind = upload(std::vector<int>(kCount, 1));
  const CUdeviceptr beside = upload(std::vector<int>(kCount, 1));
  CUstream stream = nullptr;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));

  // The second thread must get its own work done, on a stream of its own, before it releases the
  // first stream: natively it does, whatever is queued or held up elsewhere.
  std::thread second([&] {
    CHECK(cuCtxSetCurrent(device.context()));
    CUstream own = nullptr;
    CHECK(cuStreamCreate(&own, CU_STREAM_NON_BLOCKING));
    while (!held.load()) std::this_thread::yield();
    for (int i = 0; i < 10; ++i) {
      device.launch_step(beside, kCount, 3, own);
      CHECK(cuStreamSynchronize(own));
    }
    std::vector<int> values(kCount);
    CHECK(cuMemcpyDtoHAsync(values.data(), beside, kCount * sizeof(int), own));
    CHECK(cuStreamSynchronize(own));
    program.expect(values == std::vector<int>(kCount, stepped(1, 3, 10)),
                   "the second thread's stream goes on");
    CHECK(cuStreamDestroy(own));
    released = true;
  });
  CHECK(cuLaunchHostFunc(stream, hold, nullptr));
  for (int i = 0; i < launches; ++i) device.launch_step(behind, kCount, 5, stream);
  CHECK(cuStreamSynchronize(stream));
  second.join();
  const std::vector<int> out = download(behind, kCount);
  program.expect(out == std::vector<int>(kCount, stepped(1, 5, launches)),
                 "all launches behind the host function ran once");
  program.save(out);
  CHECK(cuStreamDestroy(stream));
  CHECK(cuMemFree(behind));
  CHECK(cuMemFree(beside));
  return program.finish();
}
