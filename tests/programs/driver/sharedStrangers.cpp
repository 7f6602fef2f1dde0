// One process shares memory and an event by a file; another opens what it finds there, whole or
// with a byte changed, and says what it gets.
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <chrono>
#include <string>

#include "driver.hpp"

namespace {

using namespace std::chrono_literals;

struct Handles {
  CUipcMemHandle memory;
  CUipcEventHandle event;
};

constexpr size_t kMib = size_t{1} << 20;
// Where a handle has its kind, its worker and its token (docs/internals/ipc.md).
constexpr std::pair<const char*, size_t> kPlaces[] = {
    {"magic", 3}, {"kind", 7}, {"device", 10}, {"worker", 30}, {"token", 50}};

void await_line() {
  for (int letter = 0; letter != '\n' && letter != EOF;) letter = std::getchar();
}

size_t used_bytes() {
  size_t free_bytes = 0, total_bytes = 0;
  CHECK(cuMemGetInfo(&free_bytes, &total_bytes));
  return total_bytes - free_bytes;
}

int owner(Program& program, const std::string& path, size_t bytes) {
  const Device device;
  const CUdeviceptr memory = allocate(bytes);
  CHECK(cuMemsetD32(memory, 7, bytes / sizeof(int)));
  CUevent event = nullptr;
  CHECK(cuEventCreate(&event, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING));
  CHECK(cuCtxSynchronize());
  Handles handles{};
  CHECK(cuIpcGetMemHandle(&handles.memory, memory));
  CHECK(cuIpcGetEventHandle(&handles.event, event));
  const std::string partial = path + ".new";
  std::FILE* file = std::fopen(partial.c_str(), "wb");
  if (file == nullptr || std::fwrite(&handles, sizeof handles, 1, file) != 1 ||
      std::fclose(file) != 0 || std::rename(partial.c_str(), path.c_str()) != 0) {
    program.die("the handles cannot be written");
  }
  std::printf("SHARED\n");
  std::fflush(stdout);
  await_line();
  const std::vector<int> values = download(memory, bytes / sizeof(int));
  program.expect(values == std::vector<int>(bytes / sizeof(int), 7), "nobody else wrote to it");
  CHECK(cuMemFree(memory));
  CHECK(cuEventDestroy(event));
  return program.finish();
}

Handles read_handles(const Program& program, const std::string& path) {
  Handles handles{};
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr || std::fread(&handles, sizeof handles, 1, file) != 1) {
    program.die("the handles cannot be read");
  }
  std::fclose(file);
  return handles;
}

// Until the memory, whose owner is gone, counts once: it did so by the owner, and does so by us.
void await_count(Program& program, size_t bytes) {
  const auto until = std::chrono::steady_clock::now() + 60s;
  constexpr size_t most_beside = 40 * kMib;
  size_t used = used_bytes();
  while ((used < bytes || used > bytes + most_beside) && std::chrono::steady_clock::now() < until) {
    usleep(10'000);
    used = used_bytes();
  }
  program.expect(used >= bytes && used <= bytes + most_beside, "the memory counts once");
}

int guest(Program& program, const std::string& path, const std::string& damage, size_t bytes) {
  const Device device;
  Handles handles = read_handles(program, path);
  for (const auto& [name, place] : kPlaces) {
    if (damage != name) continue;
    reinterpret_cast<unsigned char*>(&handles.memory)[place] ^= 1;
    reinterpret_cast<unsigned char*>(&handles.event)[place] ^= 1;
  }
  CUdeviceptr memory = 0;
  CUevent event = nullptr;
  const CUresult opened =
      cuIpcOpenMemHandle(&memory, handles.memory, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
  std::printf("%s: memory %d, event %d\n", damage.c_str(), opened,
              cuIpcOpenEventHandle(&event, handles.event));
  std::fflush(stdout);
  if (opened != CUDA_SUCCESS || bytes == 0) return program.finish();
  std::printf("OPENED\n");
  std::fflush(stdout);
  await_line();
  await_count(program, bytes);
  program.expect(download(memory, bytes / sizeof(int)).back() == 7, "memory outlives its owner");
  std::printf("COUNTED\n");
  std::fflush(stdout);
  await_line();
  CHECK(cuIpcCloseMemHandle(memory));
  program.expect(used_bytes() < bytes, "what is closed does not count");
  return program.finish();
}

}  // namespace

int main(int argc, char** argv) {
  Program program("sharedStrangers", argc, argv);
  const std::string path = program.text("file", "");
  const size_t bytes = static_cast<size_t>(program.number("mib", 0)) * kMib;
  if (std::strcmp(program.text("role", ""), "owner") == 0) return owner(program, path, bytes);
  return guest(program, path, program.text("damage", "nothing"), bytes);
}
