// Pinned memory that program and devices use at the same time: flags while a kernel runs, addresses
// that kernels find in other memory, streams that wait for the program's stores.
// SPDX-License-Identifier: Apache-2.0
//
// All this holds natively, and through Outboard where program and server are on one host.
// --buffers N: so many small buffers at once. --patience S: so long it waits for a kernel's word.
// --hold 1: it has pinned memory, says so, and reads a line.
#include <algorithm>
#include <chrono>
#include <set>

#include "driver.hpp"
#include "graph.hpp"

namespace {

// converse(words, rounds, most): for each round r waits until words[0] is r, and says so in
// words[1]; gives up after `most` looks. follow(holder): ++*holder[0], an address in other memory.
constexpr const char* kTalking = R"(
.version 7.0
.target sm_70
.address_size 64
.visible .entry converse(.param .u64 words, .param .u32 rounds, .param .u32 most) {
  .reg .pred %p<4>;
  .reg .b32 %r<7>;
  .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [words];
  ld.param.u32 %r1, [rounds];
  ld.param.u32 %r2, [most];
  mov.u32 %r3, 1;
next:
  mov.u32 %r4, 0;
again:
  ld.volatile.global.u32 %r5, [%rd1];
  setp.eq.s32 %p1, %r5, %r3;
  @%p1 bra said;
  add.s32 %r4, %r4, 1;
  setp.lt.u32 %p2, %r4, %r2;
  @%p2 bra again;
  bra done;
said:
  st.volatile.global.u32 [%rd1+4], %r3;
  add.s32 %r3, %r3, 1;
  setp.le.u32 %p3, %r3, %r1;
  @%p3 bra next;
done:
  ret;
}
.visible .entry follow(.param .u64 holder) {
  .reg .b32 %r<3>;
  .reg .b64 %rd<3>;
  ld.param.u64 %rd1, [holder];
  ld.global.u64 %rd2, [%rd1];
  ld.global.u32 %r1, [%rd2];
  add.s32 %r2, %r1, 1;
  st.global.u32 [%rd2], %r2;
  ret;
}
)";

long patience_s = 60;
constexpr unsigned kLonger = 2'000'000'000;  // than anybody waits

template <typename T>
T* pinned(size_t count) {
  void* memory = nullptr;
  CHECK(cuMemHostAlloc(&memory, count * sizeof(T), CU_MEMHOSTALLOC_PORTABLE));
  return static_cast<T*>(memory);
}

CUdeviceptr address_of(const void* memory) { return reinterpret_cast<CUdeviceptr>(memory); }

// Polls memory alone: no call of CUDA's could bring anything.
bool becomes(const int* word, int value) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(patience_s);
  while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != value) {
    if (std::chrono::steady_clock::now() > until) return false;
  }
  return true;
}

bool a_running_kernel_talks(Program& program, CUmodule module) {
  constexpr int kRounds = 20;
  CUfunction converse;
  CHECK(cuModuleGetFunction(&converse, module, "converse"));
  const Stream stream;
  int* words = pinned<int>(2);
  words[0] = words[1] = 0;
  CUdeviceptr at = address_of(words);
  unsigned rounds = kRounds, most = kLonger;
  void* arguments[] = {&at, &rounds, &most};
  CHECK(cuLaunchKernel(converse, 1, 1, 1, 1, 1, 1, 0, stream, arguments, nullptr));
  // Nothing more is said to the driver, but that a launch must leave by itself.
  CHECK(cuStreamQuery(stream) == CUDA_ERROR_NOT_READY ? CUDA_SUCCESS : CUDA_ERROR_UNKNOWN);
  bool heard = true;
  for (int round = 1; heard && round <= kRounds; ++round) {
    __atomic_store_n(&words[0], round, __ATOMIC_RELEASE);
    heard = becomes(&words[1], round);
  }
  program.expect(heard, "a running kernel and the program see each other's stores");
  if (!heard) return false;
  stream.wait();
  CHECK(cuMemFreeHost(words));
  return true;
}

void addresses_in_other_memory(Program& program, CUmodule module) {
  CUfunction follow;
  CHECK(cuModuleGetFunction(&follow, module, "follow"));
  int* const value = pinned<int>(1 << 20);
  *value = 41;
  const CUdeviceptr inside = address_of(value);
  CUdeviceptr holder = upload(&inside, sizeof inside);
  void* arguments[] = {&holder};
  CHECK(cuLaunchKernel(follow, 1, 1, 1, 1, 1, 1, 0, nullptr, arguments, nullptr));
  CHECK(cuCtxSynchronize());
  program.expect(*value == 42, "a kernel follows an address that it finds in device memory");
  CUdeviceptr* const outer = pinned<CUdeviceptr>(1);
  *outer = inside;
  holder = address_of(outer);
  CHECK(cuLaunchKernel(follow, 1, 1, 1, 1, 1, 1, 0, nullptr, arguments, nullptr));
  CHECK(cuCtxSynchronize());
  program.expect(*value == 43, "and one that it finds in pinned memory");
  program.save(value, sizeof *value);
  CHECK(cuMemFreeHost(outer));
  CHECK(cuMemFreeHost(value));
}

void streams_and_words(Program& program, const Device& device) {
  const Stream stream;
  int* const words = pinned<int>(2);
  words[0] = words[1] = 0;
  const CUdeviceptr values = upload(std::vector<int>(100, 1));
  CHECK(cuStreamWaitValue32(stream, address_of(words), 7, CU_STREAM_WAIT_VALUE_EQ));
  device.launch_step(values, 100, 3, stream);
  CHECK(cuStreamWriteValue32(stream, address_of(words + 1), 8, CU_STREAM_WRITE_VALUE_DEFAULT));
  program.expect(cuStreamQuery(stream) == CUDA_ERROR_NOT_READY, "the stream waits for the word");
  __atomic_store_n(&words[0], 7, __ATOMIC_RELEASE);
  program.expect(becomes(&words[1], 8), "a store lets a stream go on, which tells by another");
  stream.wait();
  program.save(download(values, 100));
  CHECK(cuMemsetD32(address_of(words), 0x1234, 2));
  program.expect(words[0] == 0x1234 && words[1] == 0x1234, "a plain fill is done when it returns");
  CHECK(cuMemFree(values));
  CHECK(cuMemFreeHost(words));
}

// From host memory to host memory, in the order of the stream and in a graph.
void copies_within_host_memory(Program& program, const Device& device) {
  constexpr int kCount = 1 << 18;
  const Stream stream;
  int* const from = pinned<int>(kCount);
  int* const to = pinned<int>(kCount);
  std::fill_n(from, kCount, 5);
  device.launch_step(address_of(from), kCount, 2, stream);
  CHECK(cuMemcpyAsync(address_of(to), address_of(from), kCount * sizeof(int), stream));
  device.launch_step(address_of(to), kCount, 2, stream);
  stream.wait();
  program.expect(std::count(to, to + kCount, 23) == kCount, "such copies keep the stream's order");
  CUgraph graph;
  CHECK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  CHECK(cuMemcpyAsync(address_of(to), address_of(from), kCount * sizeof(int), stream));
  CHECK(cuStreamEndCapture(stream, &graph));
  const CUgraphExec executable = instantiate(graph);
  for (int round = 0; round < 3; ++round) {
    std::fill_n(from, kCount, round);
    run(executable, stream);
    program.expect(std::count(to, to + kCount, round) == kCount, "graphs do them at each launch");
  }
  program.save(to, kCount * sizeof(int));
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuMemFreeHost(from));
  CHECK(cuMemFreeHost(to));
}

void many_buffers(Program& program, const Device& device, long count) {
  std::vector<int*> buffers;
  std::set<const void*> places;
  for (long i = 0; i < count; ++i) {
    buffers.push_back(pinned<int>(128));
    std::fill_n(buffers.back(), 128, static_cast<int>(i));
    places.insert(buffers.back());
    device.launch_step(address_of(buffers.back()), 128, 2, nullptr);
  }
  CHECK(cuCtxSynchronize());
  bool right = places.size() == static_cast<size_t>(count);
  for (long i = 0; i < count; ++i) {
    int* const buffer = buffers[static_cast<size_t>(i)];
    right = right && std::count(buffer, buffer + 128, static_cast<int>(2 * i + 1)) == 128;
    CHECK(cuMemFreeHost(buffer));
  }
  program.expect(right, "many small buffers are each their own");
  for (int round = 0; round < 20; ++round) {
    int* const again = pinned<int>(1 << 16);
    std::fill_n(again, 1 << 16, round);
    device.launch_step(address_of(again), 1 << 16, 2, nullptr);
    CHECK(cuCtxSynchronize());
    program.expect(std::count(again, again + (1 << 16), 2 * round + 1) == 1 << 16,
                   "memory is freed and made again");
    CHECK(cuMemFreeHost(again));
  }
}

}  // namespace

int main(int argc, char** argv) {
  Program program("pinnedLive", argc, argv);
  patience_s = program.number("patience", patience_s);
  const Device device;
  if (program.number("hold", 0) != 0) {
    std::fill_n(pinned<int>(16 << 20), 16 << 20, 1);
    std::printf("HOLDS\n");
    std::fflush(stdout);
    std::getchar();
    return program.finish();
  }
  CUmodule module;
  CHECK(cuModuleLoadData(&module, kTalking));
  // Whoever cannot do the first would wait for ever in the rest.
  if (!a_running_kernel_talks(program, module)) std::_Exit(program.finish());
  addresses_in_other_memory(program, module);
  streams_and_words(program, device);
  copies_within_host_memory(program, device);
  many_buffers(program, device, program.number("buffers", 300));
  CHECK(cuModuleUnload(module));
  return program.finish();
}
