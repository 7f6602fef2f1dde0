// Memory that two processes share by cuIpcGetMemHandle: written by one, worked on by the other,
// through large and small allocations, held by references, refused where it must be.
// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"
#include "processes.hpp"

namespace {

constexpr int kLarge = 300'000;
constexpr int kSmall = 1000;
constexpr unsigned kFlags = CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS;

CUipcMemHandle handle_of(CUdeviceptr address) {
  CUipcMemHandle handle{};
  CHECK(cuIpcGetMemHandle(&handle, address));
  return handle;
}

// What the driver answers to wrong uses; saved, so that two drivers can be compared.
void wrong_uses(Program& program, CUdeviceptr memory, CUipcMemHandle own) {
  CUdeviceptr opened = 0;
  CUipcMemHandle garbage{};
  std::memset(&garbage, 0x5a, sizeof garbage);
  CUipcMemHandle out{};
  const int codes[] = {
      cuIpcOpenMemHandle(&opened, own, kFlags),
      cuIpcOpenMemHandle(&opened, garbage, kFlags) == CUDA_SUCCESS,
      cuIpcOpenMemHandle(nullptr, own, kFlags),
      cuIpcCloseMemHandle(memory),
      cuIpcGetMemHandle(nullptr, memory),
      cuIpcGetMemHandle(&out, 4096),
  };
  for (const int code : codes) std::printf("%d ", code);
  std::printf("\n");
  program.expect(codes[0] == CUDA_ERROR_INVALID_CONTEXT, "a process does not open its own memory");
  program.save(codes, sizeof codes);
}

int consumer(Program& program, const Partner& parent) {
  const Device device;
  const auto large = parent.receive<CUipcMemHandle>();
  const auto small = parent.receive<CUipcMemHandle>();
  CUdeviceptr memory = 0, again = 0, little = 0;
  CHECK(cuIpcOpenMemHandle(&memory, large, kFlags));
  CHECK(cuIpcOpenMemHandle(&again, large, kFlags));
  CHECK(cuIpcOpenMemHandle(&little, small, kFlags));
  program.expect(memory == again, "opening it twice gives the same address");
  CUdeviceptr base = 0;
  size_t bytes = 0;
  CHECK(cuMemGetAddressRange(&base, &bytes, memory + 4096));
  program.expect(base == memory && bytes == kLarge * sizeof(int), "its range is the exporter's");
  program.expect(cuMemFree(memory) == CUDA_ERROR_INVALID_VALUE, "it is not freed but closed");
  device.launch_step(memory, kLarge, 3, nullptr);
  device.launch_step(little, kSmall, 5, nullptr);
  CHECK(cuCtxSynchronize());
  CHECK(cuIpcCloseMemHandle(again));
  CHECK(cuMemsetD32(memory, 77, 1));  // still open once
  CHECK(cuCtxSynchronize());
  parent.step();
  // What the exporter does meanwhile is seen without another word.
  parent.await_step();
  program.expect(download(little, kSmall)[kSmall - 1] == 123, "both see one memory");
  CHECK(cuIpcCloseMemHandle(memory));
  CHECK(cuIpcCloseMemHandle(little));
  program.expect(cuIpcCloseMemHandle(memory) == CUDA_ERROR_INVALID_VALUE, "it is closed once");
  int unread = 0;
  program.expect(cuMemcpyDtoH(&unread, memory, 4) == CUDA_ERROR_INVALID_VALUE,
                 "what is closed cannot be read");
  parent.step();
  return program.finish();
}

}  // namespace

int main(int argc, char** argv) {
  Program program("sharedMemory", argc, argv);
  if (std::strcmp(program.text("role", ""), "consumer") == 0) {
    return consumer(program, Partner(static_cast<int>(program.number("partner", -1))));
  }
  const Device device;
  const Partner child(argv[0], "consumer");
  const CUdeviceptr large = allocate(kLarge * sizeof(int));
  CHECK(cuMemsetD32(large, 11, kLarge));
  CHECK(cuCtxSynchronize());
  const CUdeviceptr beside = upload(std::vector<int>(kSmall, 9));
  const CUdeviceptr small = upload(std::vector<int>(kSmall, 4));
  const CUipcMemHandle handle = handle_of(large);
  const CUipcMemHandle same = handle_of(large);
  program.expect(std::memcmp(&handle, &same, sizeof handle) == 0, "one memory has one handle");
  wrong_uses(program, large, handle);
  child.send(handle);
  child.send(handle_of(small));
  child.await_step();

  const CUdeviceptr end = large + (kLarge - kSmall) * sizeof(int);
  std::vector<int> worked = download(large, 1);
  program.expect(worked[0] == 77, "the exporter sees what the other process did");
  program.expect(download(end, kSmall) == std::vector<int>(kSmall, 34), "up to the end");
  program.expect(download(small, kSmall) == std::vector<int>(kSmall, 21), "in small memory too");
  program.expect(download(beside, kSmall) == std::vector<int>(kSmall, 9), "and nothing beside it");
  program.save(worked);
  upload_to(small, std::vector<int>(kSmall, 123).data(), kSmall * sizeof(int));
  child.step();
  child.await_step();
  program.expect(child.wait() == 0, "the other process is content");

  CHECK(cuMemFree(large));
  CHECK(cuMemFree(small));
  CHECK(cuMemFree(beside));
  return program.finish();
}
