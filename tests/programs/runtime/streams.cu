// Streams that wait for each other by events, callbacks, pinned memory and queries.
// SPDX-License-Identifier: Apache-2.0
#include <atomic>

#include "runtime.hpp"

__global__ void scale(int* values, int count, int factor, int offset) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) values[i] = values[i] * factor + offset;
}

static std::atomic<int> callbacks{0};

static void CUDART_CB count_callback(void* expected) {
  // Host functions of one stream run in order.
  if (callbacks.load() == *static_cast<int*>(expected)) callbacks.fetch_add(1);
}

static void chain_of_streams(Program& program) {
  constexpr int kCount = 10000, kStreams = 4, kRounds = 6;
  int* host = nullptr;
  int* device = nullptr;
  CHECK(cudaMallocHost(&host, kCount * sizeof(int)));
  CHECK(cudaMalloc(&device, kCount * sizeof(int)));
  for (int i = 0; i < kCount; ++i) host[i] = i % 100;
  cudaStream_t streams[kStreams];
  cudaEvent_t events[kStreams];
  for (int s = 0; s < kStreams; ++s) {
    CHECK(cudaStreamCreateWithFlags(&streams[s], cudaStreamNonBlocking));
    CHECK(cudaEventCreateWithFlags(&events[s], cudaEventDisableTiming));
  }
  CHECK(cudaMemcpyAsync(device, host, kCount * sizeof(int), cudaMemcpyHostToDevice, streams[0]));
  int order[kRounds];
  // Each round runs on the next stream, after the one before it.
  for (int round = 0; round < kRounds; ++round) {
    cudaStream_t stream = streams[round % kStreams];
    if (round > 0) CHECK(cudaStreamWaitEvent(stream, events[(round - 1) % kStreams], 0));
    scale<<<(kCount + 255) / 256, 256, 0, stream>>>(device, kCount, 3, round);
    CHECK(cudaGetLastError());
    order[round] = round;
    CHECK(cudaLaunchHostFunc(stream, count_callback, &order[round]));
    CHECK(cudaEventRecord(events[round % kStreams], stream));
  }
  cudaStream_t last = streams[(kRounds - 1) % kStreams];
  CHECK(cudaMemcpyAsync(host, device, kCount * sizeof(int), cudaMemcpyDeviceToHost, last));
  CHECK(cudaStreamSynchronize(last));
  program.expect(cudaStreamQuery(last) == cudaSuccess, "a stream that was waited for is ready");
  bool right = true;
  for (int i = 0; i < kCount; ++i) {
    int expected = i % 100;
    for (int round = 0; round < kRounds; ++round) expected = expected * 3 + round;
    right = right && host[i] == expected;
  }
  program.expect(right, "events put the streams in order");
  program.expect(callbacks.load() == kRounds, "every host function ran, in order");
  program.save(host, kCount * sizeof(int));
  for (int s = 0; s < kStreams; ++s) {
    CHECK(cudaEventDestroy(events[s]));
    CHECK(cudaStreamDestroy(streams[s]));
  }
  CHECK(cudaFree(device));
  CHECK(cudaFreeHost(host));
}

// The legacy default stream waits for blocking streams, and they for it.
static void legacy_stream(Program& program) {
  constexpr int kCount = 50000;
  const DeviceBuffer<int> device(std::vector<int>(kCount, 1));
  cudaStream_t blocking;
  CHECK(cudaStreamCreate(&blocking));
  constexpr int kBlocks = (kCount + 255) / 256;
  scale<<<kBlocks, 256, 0, blocking>>>(device.get(), kCount, 5, 0);
  scale<<<kBlocks, 256>>>(device.get(), kCount, 1, 2);
  scale<<<kBlocks, 256, 0, blocking>>>(device.get(), kCount, 10, 0);
  CHECK(cudaGetLastError());
  CHECK(cudaDeviceSynchronize());
  program.expect(device.download() == std::vector<int>(kCount, 70),
                 "the default stream is ordered with blocking streams");
  // Whoever waits for it waits for them, although it has no work of its own.
  int* pinned = nullptr;
  CHECK(cudaMallocHost(&pinned, kCount * sizeof(int)));
  std::fill(pinned, pinned + kCount, 1);
  for (int round = 1; round <= 5; ++round) {
    for (int i = 0; i < 20; ++i) scale<<<kBlocks, 256, 0, blocking>>>(pinned, kCount, 1, 1);
    CHECK(cudaGetLastError());
    CHECK(cudaStreamSynchronize(nullptr));
    program.expect(pinned[kCount - 1] == 1 + 20 * round, "waiting for it is waiting for them");
  }
  scale<<<kBlocks, 256, 0, blocking>>>(pinned, kCount, 1, 1);
  while (cudaStreamQuery(nullptr) == cudaErrorNotReady) {
  }
  program.expect(pinned[0] == 102, "and so is asking about it");
  CHECK(cudaFreeHost(pinned));
  CHECK(cudaStreamDestroy(blocking));
}

static void timing(Program& program) {
  cudaEvent_t begin, end;
  CHECK(cudaEventCreate(&begin));
  CHECK(cudaEventCreate(&end));
  const DeviceBuffer<int> device(std::vector<int>(1000, 1));
  CHECK(cudaEventRecord(begin));
  for (int i = 0; i < 20; ++i) scale<<<4, 256>>>(device.get(), 1000, 1, 1);
  CHECK(cudaGetLastError());
  CHECK(cudaEventRecord(end));
  CHECK(cudaEventSynchronize(end));
  program.expect(cudaEventQuery(begin) == cudaSuccess, "an earlier event is complete");
  float milliseconds = -1;
  CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
  program.expect(milliseconds >= 0, "time between events does not run backwards");
  program.save(device.download());
  CHECK(cudaEventDestroy(begin));
  CHECK(cudaEventDestroy(end));
}

// Stream-ordered allocation, and a graph captured from a stream and launched often.
static void pools_and_graphs(Program& program) {
  constexpr int kCount = 4096;
  cudaStream_t stream;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  int* device = nullptr;
  CHECK(cudaMallocAsync(reinterpret_cast<void**>(&device), kCount * sizeof(int), stream));
  CHECK(cudaMemsetAsync(device, 0, kCount * sizeof(int), stream));
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  scale<<<kCount / 256, 256, 0, stream>>>(device, kCount, 2, 1);
  scale<<<kCount / 256, 256, 0, stream>>>(device, kCount, 1, 3);
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&executable, graph, 0));
  int expected = 0;
  for (int i = 0; i < 5; ++i) {
    CHECK(cudaGraphLaunch(executable, stream));
    expected = expected * 2 + 1 + 3;
  }
  std::vector<int> out(kCount);
  CHECK(cudaMemcpyAsync(out.data(), device, kCount * sizeof(int), cudaMemcpyDeviceToHost, stream));
  CHECK(cudaFreeAsync(device, stream));
  CHECK(cudaStreamSynchronize(stream));
  program.expect(out == std::vector<int>(kCount, expected), "a graph's launches add up");
  program.save(out);
  CHECK(cudaGraphExecDestroy(executable));
  CHECK(cudaGraphDestroy(graph));
  CHECK(cudaStreamDestroy(stream));
}

int main(int argc, char** argv) {
  Program program("streams", argc, argv);
  chain_of_streams(program);
  legacy_stream(program);
  timing(program);
  pools_and_graphs(program);
  return program.finish();
}
