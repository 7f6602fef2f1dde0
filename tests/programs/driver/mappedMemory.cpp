// Host memory that kernels read and write themselves: pinned, registered, in graphs, with host
// functions and copies before and after.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <memory>

#include "driver.hpp"

namespace {

// Polls a flag, as kernels do that hold up a stream until the host lets them go; gives up.
constexpr const char* kPolling = R"(
.version 7.0
.target sm_80
.address_size 64
.visible .entry poll(.param .u64 flag, .param .u64 out, .param .u32 most) {
  .reg .pred %p<3>;
  .reg .b32 %r<5>;
  .reg .b64 %rd<3>;
  ld.param.u64 %rd1, [flag];
  ld.param.u64 %rd2, [out];
  ld.param.u32 %r1, [most];
  mov.u32 %r2, 0;
again:
  ld.volatile.global.u32 %r3, [%rd1];
  setp.ne.s32 %p1, %r3, 0;
  @%p1 bra done;
  add.s32 %r2, %r2, 1;
  setp.lt.u32 %p2, %r2, %r1;
  @%p2 bra again;
done:
  st.global.u32 [%rd2], %r3;
  ret;
}
)";

constexpr int kCount = 1 << 20;  // 4 MiB: more than what changes goes in one piece

std::vector<int> counted(int first) {
  std::vector<int> values(kCount);
  for (int i = 0; i < kCount; ++i) values[static_cast<size_t>(i)] = first + i;
  return values;
}

// The program's and the devices' address of the same memory.
struct Shared {
  int* host = nullptr;
  CUdeviceptr device = 0;
};

Shared pinned(int count) {
  Shared memory;
  void* host = nullptr;
  CHECK(cuMemHostAlloc(&host, static_cast<size_t>(count) * 4, CU_MEMHOSTALLOC_DEVICEMAP));
  memory.host = static_cast<int*>(host);
  CHECK(cuMemHostGetDevicePointer(&memory.device, host, 0));
  return memory;
}

bool all_of(const int* values, int count, int value) {
  return std::all_of(values, values + count, [value](int one) { return one == value; });
}

void kernels_and_host(Program& program, const Device& device) {
  const Shared memory = pinned(kCount);
  program.expect(memory.device == reinterpret_cast<CUdeviceptr>(memory.host),
                 "pinned memory has one address");
  std::fill_n(memory.host, kCount, 1);
  device.launch_step(memory.device, kCount, 3, nullptr);
  CHECK(cuCtxSynchronize());
  program.expect(all_of(memory.host, kCount, 4), "a kernel changes pinned memory");

  // The kernel has the first half, the host the second, at the same time.
  device.launch_step(memory.device, kCount / 2, 2, nullptr);
  std::fill_n(memory.host + kCount / 2, kCount / 2, 70);
  CHECK(cuCtxSynchronize());
  program.expect(
      all_of(memory.host, kCount / 2, 9) && all_of(memory.host + kCount / 2, kCount / 2, 70),
      "kernel and host change different parts at once");

  // Two streams, waited for by an event and by a query.
  CUstream streams[2];
  CUevent event;
  for (CUstream& stream : streams) CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CHECK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
  device.launch_step(memory.device, 1000, 1, streams[0]);
  CHECK(cuEventRecord(event, streams[0]));
  device.launch_step(memory.device + 4000, 1000, 1, streams[1]);
  CHECK(cuEventSynchronize(event));
  program.expect(all_of(memory.host, 1000, 10), "an event that is waited for brings changes");
  while (cuStreamQuery(streams[1]) == CUDA_ERROR_NOT_READY) {
  }
  program.expect(all_of(memory.host + 1000, 1000, 10), "a stream that is done brings changes");
  program.save(memory.host, kCount * sizeof(int));
  CHECK(cuEventDestroy(event));
  for (CUstream stream : streams) CHECK(cuStreamDestroy(stream));
  CHECK(cuMemFreeHost(memory.host));
}

// The host lets a running kernel go on, and then waits for it in each way there is.
void flag_for_a_running_kernel(Program& program) {
  CUmodule module;
  CUfunction function;
  CUstream stream;
  CUevent event;
  CHECK(cuModuleLoadData(&module, kPolling));
  CHECK(cuModuleGetFunction(&function, module, "poll"));
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CHECK(cuEventCreate(&event, CU_EVENT_DEFAULT));
  const Shared memory = pinned(2);
  unsigned most = 2'000'000'000;  // longer than anybody waits
  CUdeviceptr out = memory.device + 4;
  void* arguments[] = {const_cast<CUdeviceptr*>(&memory.device), &out, &most};
  const auto wait = [&](int way) {
    if (way == 0) CHECK(cuEventSynchronize(event));
    if (way == 1) CHECK(cuStreamSynchronize(stream));
    if (way == 2) CHECK(cuCtxSynchronize());
    while (way == 3 && cuStreamQuery(stream) == CUDA_ERROR_NOT_READY) {
    }
    while (way == 4 && cuEventQuery(event) == CUDA_ERROR_NOT_READY) {
    }
  };
  for (int way = 0; way < 5; ++way) {
    memory.host[0] = memory.host[1] = 0;
    CHECK(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, arguments, nullptr));
    CHECK(cuEventRecord(event, stream));
    program.expect(cuEventQuery(event) == CUDA_ERROR_NOT_READY, "the kernel polls");
    memory.host[0] = 40 + way;
    wait(way);
    program.expect(memory.host[1] == 40 + way, "a running kernel sees the flag");
  }
  CHECK(cuMemFreeHost(memory.host));
  CHECK(cuEventDestroy(event));
  CHECK(cuStreamDestroy(stream));
  CHECK(cuModuleUnload(module));
}

void registered(Program& program, const Device& device) {
  const auto whole = std::make_unique<int[]>(5000);
  int* part = whole.get() + 3;
  CHECK(cuMemHostRegister(part, 4000 * sizeof(int), CU_MEMHOSTREGISTER_DEVICEMAP));
  CUdeviceptr address = 0;
  CHECK(cuMemHostGetDevicePointer(&address, part, 0));
  std::fill_n(whole.get(), 5000, 5);
  device.launch_step(address, 4000, 2, nullptr);
  CHECK(cuStreamSynchronize(nullptr));
  program.expect(all_of(part, 4000, 11) && all_of(whole.get(), 3, 5) && all_of(part + 4000, 997, 5),
                 "a kernel changes registered memory, and only that");

  // Commands that take any address take this one.
  CHECK(cuMemsetD32Async(address, 21, 100, nullptr));
  CHECK(cuCtxSynchronize());
  program.expect(all_of(part, 100, 21) && part[100] == 11, "it is set like any memory");
  CHECK(cuMemsetD32(address, 22, 100));
  program.expect(all_of(part, 100, 22), "and at the return, unlike a device's");
  CHECK(cuMemsetD32(address, 21, 100));
  const CUdeviceptr copy = allocate(400);
  CHECK(cuMemcpyDtoD(copy, address, 400));
  program.expect(download(copy, 100) == std::vector<int>(100, 21), "it is copied from");
  CHECK(cuMemsetD32(copy, 8, 100));
  CHECK(cuMemcpy(address + 400, copy, 400));
  program.expect(all_of(part + 100, 100, 8), "it is copied to");

  CUmemorytype type{};
  void* host = nullptr;
  CUdeviceptr again = 0;
  CHECK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address));
  CHECK(cuPointerGetAttribute(&host, CU_POINTER_ATTRIBUTE_HOST_POINTER, address + 8));
  const auto at = reinterpret_cast<CUdeviceptr>(part);
  CHECK(cuPointerGetAttribute(&again, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, at));
  program.expect(type == CU_MEMORYTYPE_HOST && host == part + 2 && again == address,
                 "either address tells the other");
  program.save(whole.get(), 5000 * sizeof(int));
  CHECK(cuMemFree(copy));
  CHECK(cuMemHostUnregister(part));
}

void in_stream_order(Program& program, const Device& device) {
  CUstream stream;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  const Shared memory = pinned(kCount);
  const std::vector<int> values = counted(7);
  const CUdeviceptr source = upload(values);
  const CUdeviceptr target = allocate(kCount * sizeof(int));

  // Copied into, worked on, copied from, without a wait between.
  CHECK(cuMemcpyDtoHAsync(memory.host, source, kCount * sizeof(int), stream));
  device.launch_step(memory.device, kCount, 2, stream);
  CHECK(cuMemcpyHtoDAsync(target, memory.host, kCount * sizeof(int), stream));
  device.launch_add(target, memory.device, target, kCount, stream);
  CHECK(cuStreamSynchronize(stream));
  const std::vector<int> sums = download(target, kCount);
  bool right = true;
  for (int i = 0; i < kCount; ++i) {
    const auto at = static_cast<size_t>(i);
    right = right && memory.host[i] == 2 * values[at] + 1 && sums[at] == 2 * memory.host[i];
  }
  program.expect(right, "copies and kernels on pinned memory keep their order");
  program.save(sums);

  // A host function sees what the kernel before it did; the kernel after it sees what it did.
  std::fill_n(memory.host, kCount, 1);
  struct Seen {
    int* host;
    bool right;
  } seen{memory.host, false};
  device.launch_step(memory.device, kCount, 5, stream);
  const auto look = [](void* data) {
    auto* of = static_cast<Seen*>(data);
    of->right = all_of(of->host, kCount, 6);
    std::fill_n(of->host, 100, 30);
  };
  CHECK(cuLaunchHostFunc(stream, look, &seen));
  device.launch_step(memory.device, kCount, 2, stream);
  CHECK(cuStreamSynchronize(stream));
  program.expect(seen.right, "a host function sees what kernels changed");
  program.expect(all_of(memory.host, 100, 61) && all_of(memory.host + 100, kCount - 100, 13),
                 "kernels see what a host function changed");
  CHECK(cuMemFree(source));
  CHECK(cuMemFree(target));
  CHECK(cuMemFreeHost(memory.host));
  CHECK(cuStreamDestroy(stream));
}

void in_a_graph(Program& program, const Device& device) {
  CUstream stream;
  CUgraph graph;
  CUgraphExec executable;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  const Shared memory = pinned(1000);
  CHECK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  device.launch_step(memory.device, 1000, 2, stream);
  CHECK(cuStreamEndCapture(stream, &graph));
  CHECK(cuGraphInstantiate(&executable, graph, 0));
  for (int round = 0; round < 3; ++round) {
    std::fill_n(memory.host, 1000, 10 * round);
    CHECK(cuGraphLaunch(executable, stream));
    CHECK(cuStreamSynchronize(stream));
    program.expect(all_of(memory.host, 1000, 20 * round + 1),
                   "each launch of a graph works on what the memory holds then");
  }
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuMemFreeHost(memory.host));
  CHECK(cuStreamDestroy(stream));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("mappedMemory", argc, argv);
  const Device device;
  kernels_and_host(program, device);
  flag_for_a_running_kernel(program);
  registered(program, device);
  in_stream_order(program, device);
  in_a_graph(program, device);
  return program.finish();
}
