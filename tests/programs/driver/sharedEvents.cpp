// Events that two processes share: each waits on the device for what the other has recorded.
// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"
#include "processes.hpp"

namespace {

constexpr int kCount = 1 << 15;
constexpr int kRounds = 6;
constexpr unsigned kFlags = CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING;

struct Handles {
  CUipcMemHandle memory;
  CUipcEventHandle to_child;
  CUipcEventHandle to_parent;
};

// No process waits on the host between the first launch and the last: all order is the events'.
int child_of(Program& program, const Partner& parent) {
  const Device device;
  const auto handles = parent.receive<Handles>();
  CUdeviceptr memory = 0;
  CUevent mine = nullptr, theirs = nullptr;
  CHECK(cuIpcOpenMemHandle(&memory, handles.memory, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
  CHECK(cuIpcOpenEventHandle(&theirs, handles.to_child));
  CHECK(cuIpcOpenEventHandle(&mine, handles.to_parent));
  CUstream stream = nullptr;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  for (int round = 0; round < kRounds; ++round) {
    parent.await_step();
    CHECK(cuStreamWaitEvent(stream, theirs, 0));
    device.launch_step(memory, kCount, 2, stream);
    CHECK(cuEventRecord(mine, stream));
    parent.step();
  }
  CHECK(cuEventSynchronize(mine));
  program.expect(cuEventQuery(mine) == CUDA_SUCCESS, "what was waited for is complete");
  float unused = 0;
  program.expect(cuEventElapsedTime(&unused, theirs, mine) == CUDA_ERROR_INVALID_HANDLE,
                 "such events have no time");
  CHECK(cuEventDestroy(theirs));
  CHECK(cuEventDestroy(mine));
  CHECK(cuIpcCloseMemHandle(memory));
  CHECK(cuStreamDestroy(stream));
  return program.finish();
}

void wrong_uses(Program& program, CUevent event, CUipcEventHandle own) {
  CUevent plain = nullptr, made = nullptr;
  CUipcEventHandle out{};
  CHECK(cuEventCreate(&plain, CU_EVENT_DISABLE_TIMING));
  const int codes[] = {
      cuEventCreate(&made, CU_EVENT_INTERPROCESS),
      cuIpcGetEventHandle(&out, plain) != CUDA_SUCCESS,
      cuIpcGetEventHandle(nullptr, event) != CUDA_SUCCESS,
      cuIpcOpenEventHandle(&made, own) != CUDA_SUCCESS,
  };
  for (const int code : codes) std::printf("%d ", code);
  std::printf("\n");
  program.save(codes, sizeof codes);
  CHECK(cuEventDestroy(plain));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("sharedEvents", argc, argv);
  if (std::strcmp(program.text("role", ""), "child") == 0) {
    return child_of(program, Partner(static_cast<int>(program.number("partner", -1))));
  }
  const Device device;
  const Partner child(argv[0], "child");
  const CUdeviceptr memory = upload(std::vector<int>(kCount, 1));
  CUevent to_child = nullptr, to_parent = nullptr;
  CUstream stream = nullptr;
  CHECK(cuEventCreate(&to_child, kFlags));
  CHECK(cuEventCreate(&to_parent, kFlags | CU_EVENT_BLOCKING_SYNC));
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  program.expect(cuEventQuery(to_child) == CUDA_SUCCESS, "what was never recorded is complete");
  Handles handles{};
  CHECK(cuIpcGetMemHandle(&handles.memory, memory));
  CHECK(cuIpcGetEventHandle(&handles.to_child, to_child));
  CHECK(cuIpcGetEventHandle(&handles.to_parent, to_parent));
  wrong_uses(program, to_child, handles.to_child);
  child.send(handles);
  CHECK(cuCtxSynchronize());
  for (int round = 0; round < kRounds; ++round) {
    device.launch_step(memory, kCount, 3, stream);
    CHECK(cuEventRecord(to_child, stream));
    child.step();
    child.await_step();
    CHECK(cuStreamWaitEvent(stream, to_parent, 0));
  }
  std::vector<int> values(kCount);
  CHECK(cuMemcpyDtoHAsync(values.data(), memory, kCount * sizeof(int), stream));
  CHECK(cuEventRecord(to_child, stream));
  CHECK(cuEventSynchronize(to_child));
  int expected = 1;
  for (int round = 0; round < kRounds; ++round) expected = (3 * expected + 1) * 2 + 1;
  program.expect(values == std::vector<int>(kCount, expected), "the devices' work kept its order");
  program.save(values);
  program.expect(child.wait() == 0, "the other process is content");
  CHECK(cuEventDestroy(to_child));
  CHECK(cuEventDestroy(to_parent));
  CHECK(cuStreamDestroy(stream));
  CHECK(cuMemFree(memory));
  return program.finish();
}
