// Managed memory as programs use it: program and kernels take turns, structures lead from one
// allocation to the next, and any copy takes it.
// SPDX-License-Identifier: Apache-2.0
#include <numeric>

#include "runtime.hpp"

namespace {

constexpr int kCount = 1 << 18;
constexpr int kThreads = 256;

__global__ void add(int count, const float* x, float* y) {
  const int stride = blockDim.x * gridDim.x;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) y[i] = x[i] + y[i];
}

struct Item {
  int value;
  int seen;
  Item* next;
};

__global__ void walk(Item* first, int* sum) {
  for (Item* item = first; item != nullptr; item = item->next) {
    *sum += item->value;
    ++item->seen;
  }
}

__global__ void count_up(int* values, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) values[i] += i;
}

template <typename T>
T* managed(size_t count, unsigned flags = cudaMemAttachGlobal) {
  T* memory = nullptr;
  CHECK(cudaMallocManaged(&memory, count * sizeof(T), flags));
  return memory;
}

void prefetch(const void* memory, size_t bytes, cudaStream_t stream) {
  const cudaMemLocation place = {cudaMemLocationTypeDevice, 0};
  CHECK(cudaMemAdvise(memory, bytes, cudaMemAdviseSetReadMostly, place));
  CHECK(cudaMemPrefetchAsync(memory, bytes, place, 0, stream));
}

void take_turns(Program& program) {
  auto* x = managed<float>(kCount);
  auto* y = managed<float>(kCount);
  for (int i = 0; i < kCount; ++i) {
    x[i] = 1.0F;
    y[i] = static_cast<float>(i % 1000);
  }
  prefetch(x, kCount * sizeof(float), nullptr);
  bool right = true;
  for (int round = 1; round <= 4; ++round) {
    add<<<64, kThreads>>>(kCount, x, y);
    add<<<64, kThreads>>>(kCount, x, y);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    for (int i = 0; i < kCount; ++i) {
      right = right && y[i] == static_cast<float>(i % 1000 + round * 2);
      y[i] = static_cast<float>(i % 1000 + round * 2);
    }
    x[round] = 1.0F;
  }
  program.expect(right, "program and kernels take turns");
  program.save(y, kCount * sizeof(float));
  CHECK(cudaFree(x));
  CHECK(cudaFree(y));
}

void follow_structures(Program& program) {
  constexpr int kItems = 50;
  Item* first = nullptr;
  for (int i = 0; i < kItems; ++i) {
    auto* item = managed<Item>(1);
    *item = {i, 0, first};
    first = item;
  }
  auto* sum = managed<int>(1);
  *sum = 0;
  for (int round = 1; round <= 3; ++round) {
    walk<<<1, 1>>>(first, sum);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    program.expect(*sum == kItems * (kItems - 1) / 2 + round - 1, "a kernel follows addresses");
    for (Item* item = first; item != nullptr; item = item->next) {
      program.expect(item->seen == round, "and what it changes on the way is seen");
    }
    *sum = round;
  }
  program.save(sum, sizeof *sum);
  while (first != nullptr) {
    Item* next = first->next;
    CHECK(cudaFree(first));
    first = next;
  }
  CHECK(cudaFree(sum));
}

void copies(Program& program) {
  auto* memory = managed<int>(kCount);
  std::vector<int> host(kCount);
  std::iota(host.begin(), host.end(), 5);
  const size_t bytes = host.size() * sizeof(int);
  const DeviceBuffer<int> device(kCount);
  CHECK(cudaMemcpy(memory, host.data(), bytes, cudaMemcpyHostToDevice));
  CHECK(cudaMemcpy(device.get(), memory, bytes, cudaMemcpyDeviceToDevice));
  CHECK(cudaMemset(memory, 0xff, bytes));
  CHECK(cudaDeviceSynchronize());
  program.expect(memory[0] == -1 && memory[kCount - 1] == -1, "it is set");
  count_up<<<kCount / kThreads, kThreads>>>(device.get(), kCount);
  CHECK(cudaMemcpyAsync(memory, device.get(), bytes, cudaMemcpyDefault, nullptr));
  CHECK(cudaDeviceSynchronize());
  program.expect(memory[7] == 19 && memory[kCount - 1] == 2 * kCount + 3, "it is copied to");
  memory[7] = 20;
  CHECK(cudaMemcpy(host.data(), memory, bytes, cudaMemcpyDefault));
  program.expect(host[7] == 20 && host[8] == 21, "and from");
  CHECK(cudaMemcpy2D(memory, 64, host.data(), 128, 64, 100, cudaMemcpyDefault));
  CHECK(cudaDeviceSynchronize());
  program.expect(memory[16] == host[32], "in rows, too");
  program.save(memory, bytes);
  CHECK(cudaFree(memory));
}

void streams(Program& program) {
  cudaStream_t stream;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  auto* values = managed<int>(kCount, cudaMemAttachHost);
  CHECK(cudaStreamAttachMemAsync(stream, values, 0, cudaMemAttachSingle));
  CHECK(cudaStreamSynchronize(stream));
  std::fill(values, values + kCount, 1);
  count_up<<<kCount / kThreads, kThreads, 0, stream>>>(values, kCount);
  CHECK(cudaStreamSynchronize(stream));
  program.expect(values[0] == 1 && values[100] == 101, "memory of one stream");

  cudaGraph_t graph;
  cudaGraphExec_t executable;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  count_up<<<kCount / kThreads, kThreads, 0, stream>>>(values, kCount);
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&executable, graph, 0));
  for (int round = 0; round < 3; ++round) {
    values[round] = 1000;
    CHECK(cudaGraphLaunch(executable, stream));
    CHECK(cudaStreamSynchronize(stream));
    program.expect(values[round] == 1000 + round && values[100] == 201 + 100 * round,
                   "a graph takes its turn each time that it is launched");
  }
  program.save(values, kCount * sizeof(int));
  CHECK(cudaGraphExecDestroy(executable));
  CHECK(cudaGraphDestroy(graph));
  CHECK(cudaStreamDestroy(stream));
  CHECK(cudaFree(values));
}

// A plain copy comes after what blocking streams do, and before what they do next.
void plain_copies_wait(Program& program) {
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  auto* values = managed<int>(kCount);
  std::vector<int> host(kCount, 100);
  const size_t bytes = kCount * sizeof(int);
  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < 3; ++i) {
      count_up<<<kCount / kThreads, kThreads, 0, stream>>>(values, kCount);
    }
    CHECK(cudaMemcpy(values, host.data(), bytes, cudaMemcpyHostToDevice));
    CHECK(cudaDeviceSynchronize());
    program.expect(values[1] == 100 && values[kCount - 1] == 100, "a copy to it waits");
    count_up<<<kCount / kThreads, kThreads, 0, stream>>>(values, kCount);
    std::vector<int> back(kCount);
    CHECK(cudaMemcpy(back.data(), values, bytes, cudaMemcpyDefault));
    program.expect(back[1] == 101 && back[kCount - 1] == 99 + kCount, "and one from it");
    count_up<<<kCount / kThreads, kThreads, 0, stream>>>(values, kCount);
    CHECK(cudaMemcpy2D(back.data(), 64, values, 128, 64, 100, cudaMemcpyDefault));
    program.expect(back[17] == 100 + 2 * 33, "and one in rows");
  }
  CHECK(cudaStreamDestroy(stream));
  CHECK(cudaFree(values));
}

// Copies and kernels of one graph see each other's.
void graphs(Program& program) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  auto* first = managed<int>(kCount);
  auto* second = managed<int>(kCount);
  const DeviceBuffer<int> device(std::vector<int>(kCount, 1000));
  CHECK(cudaDeviceSynchronize());
  const size_t bytes = kCount * sizeof(int);
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  CHECK(cudaMemcpyAsync(first, device.get(), bytes, cudaMemcpyDefault, stream));
  count_up<<<kCount / kThreads, kThreads, 0, stream>>>(first, kCount);
  CHECK(cudaMemcpyAsync(second, first, bytes, cudaMemcpyDefault, stream));
  count_up<<<kCount / kThreads, kThreads, 0, stream>>>(second, kCount);
  CHECK(cudaMemcpyAsync(device.get(), second, bytes, cudaMemcpyDefault, stream));
  CHECK(cudaMemcpy2DAsync(first, 64, second, 64, 64, 100, cudaMemcpyDefault, stream));
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&executable, graph, 0));
  for (int round = 1; round <= 3; ++round) {
    CHECK(cudaGraphLaunch(executable, stream));
    CHECK(cudaStreamSynchronize(stream));
    program.expect(first[2000] == 1000 + (2 * round - 1) * 2000, "a kernel finds what was copied");
    program.expect(second[100] == 1000 + 200 * round, "a copy what a kernel wrote");
    program.expect(first[7] == second[7], "in rows, too");
  }
  const std::vector<int> back = device.download();
  program.expect(back[100] == 1000 + 600, "and what leaves is right");
  program.save(back);
  CHECK(cudaGraphExecDestroy(executable));
  CHECK(cudaGraphDestroy(graph));
  CHECK(cudaStreamDestroy(stream));
  CHECK(cudaFree(first));
  CHECK(cudaFree(second));
}

// One after the other, whichever the memory was made for.
void devices(Program& program) {
  int count = 0;
  CHECK(cudaGetDeviceCount(&count));
  auto* values = managed<int>(kCount);
  for (int device = 0; device < count; ++device) {
    CHECK(cudaSetDevice(device));
    count_up<<<kCount / kThreads, kThreads>>>(values, kCount);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    program.expect(values[100] == 100 * (device + 1), "all devices reach it");
    values[0] += device;
  }
  program.save(values, kCount * sizeof(int));
  CHECK(cudaSetDevice(0));
  CHECK(cudaFree(values));
}

void described(Program& program) {
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, 0));
  program.expect(properties.managedMemory == 1, "the device has it");
  auto* memory = managed<int>(100);
  cudaPointerAttributes attributes;
  CHECK(cudaPointerGetAttributes(&attributes, memory + 1));
  program.expect(attributes.type == cudaMemoryTypeManaged && attributes.device == 0,
                 "a pointer says that it is managed memory");
  program.expect(attributes.hostPointer == memory + 1 && attributes.devicePointer == memory + 1,
                 "with one address for all");
  program.expect(memory[0] == 0 && memory[99] == 0, "it begins as zeros");
  CHECK(cudaFree(memory));
  int* none = nullptr;
  program.expect(cudaMallocManaged(&none, 100, 0) == cudaErrorInvalidValue, "it needs a flag");
  cudaGetLastError();
}

}  // namespace

int main(int argc, char** argv) {
  Program program("managedMemory", argc, argv);
  described(program);
  take_turns(program);
  follow_structures(program);
  copies(program);
  streams(program);
  plain_copies_wait(program);
  graphs(program);
  devices(program);
  return program.finish();
}
