// A plain copy to memory that another process looks at is in place when the call returns: more than
// CUDA's documentation promises, and as a program that tried it natively will have found.
// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"
#include "processes.hpp"

namespace {

constexpr size_t kCount = 1 << 16;
constexpr int kRounds = 8;

int reader(Program& program, const Partner& parent) {
  const Device device;
  const auto handle = parent.receive<CUipcMemHandle>();
  CUdeviceptr memory = 0;
  CHECK(cuIpcOpenMemHandle(&memory, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
  for (int round = 0; round < kRounds; ++round) {
    parent.await_step();
    int last = -1;
    CHECK(cuMemcpyDtoH(&last, memory + (kCount - 1) * sizeof(int), sizeof last));
    program.expect(last == round, "what was copied before the word came is there");
    parent.step();
  }
  CHECK(cuIpcCloseMemHandle(memory));
  return program.finish();
}

}  // namespace

int main(int argc, char** argv) {
  Program program("sharedUploads", argc, argv);
  if (std::strcmp(program.text("role", ""), "reader") == 0) {
    return reader(program, Partner(static_cast<int>(program.number("partner", -1))));
  }
  const Device device;
  const Partner child(argv[0], "reader");
  const CUdeviceptr memory = allocate(kCount * sizeof(int));
  CUipcMemHandle handle{};
  CHECK(cuIpcGetMemHandle(&handle, memory));
  child.send(handle);
  for (int round = 0; round < kRounds; ++round) {
    const std::vector<int> values(kCount, round);
    CHECK(cuMemcpyHtoD(memory, values.data(), kCount * sizeof(int)));
    child.step();
    child.await_step();
  }
  program.save(download(memory, kCount));
  program.expect(child.wait() == 0, "the other process is content");
  CHECK(cuMemFree(memory));
  return program.finish();
}
