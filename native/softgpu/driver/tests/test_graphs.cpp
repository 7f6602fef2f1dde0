// Stream capture and graphs.
// SPDX-License-Identifier: Apache-2.0
#include <thread>

#include "support.hpp"

namespace {

struct Capturing : OwnContext {
  CUmodule module = load(kKernels);
  CUstream stream = nullptr;
  CUdeviceptr counter = 0;
  Capturing() {
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuMemAlloc(&counter, 4));
    OK(cuMemsetD32(counter, 0, 1));
    OK(cuCtxSynchronize());
  }
  void increment(CUstream s) { OK(run_one(kernel(module, "increment"), s, counter)); }
};

}  // namespace

TEST_CASE("what is captured runs at each launch, and not before") {
  Capturing t;
  CUgraph graph;
  CUgraphExec exec;
  OK(cuStreamBeginCapture(t.stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  t.increment(t.stream);
  t.increment(t.stream);
  CUstreamCaptureStatus status;
  OK(cuStreamIsCapturing(t.stream, &status));
  CHECK(status == CU_STREAM_CAPTURE_STATUS_ACTIVE);
  OK(cuStreamEndCapture(t.stream, &graph));
  CHECK(read<unsigned>(t.counter) == 0);
  size_t nodes = 0, edges = 0;
  OK(cuGraphGetNodes(graph, nullptr, &nodes));
  OK(cuGraphGetEdges(graph, nullptr, nullptr, nullptr, &edges));
  CHECK(nodes == 2);
  CHECK(edges == 1);
  OK(cuGraphInstantiate(&exec, graph, 0));
  OK(cuGraphDestroy(graph));
  for (int i = 0; i < 3; ++i) OK(cuGraphLaunch(exec, t.stream));
  OK(cuStreamSynchronize(t.stream));
  CHECK(read<unsigned>(t.counter) == 6);
  OK(cuGraphExecDestroy(exec));
  CHECK(cuGraphLaunch(exec, t.stream) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("events fork and join captures, and unjoined work is an error") {
  Capturing t;
  CUstream other;
  CUevent fork, join;
  CUgraph graph;
  OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
  OK(cuEventCreate(&fork, 0));
  OK(cuEventCreate(&join, 0));
  OK(cuStreamBeginCapture(t.stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  t.increment(t.stream);
  OK(cuEventRecord(fork, t.stream));
  OK(cuStreamWaitEvent(other, fork, 0));
  t.increment(other);
  CHECK(cuStreamEndCapture(other, &graph) == CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
  SUBCASE("joined") {
    OK(cuEventRecord(join, other));
    OK(cuStreamWaitEvent(t.stream, join, 0));
    OK(cuStreamEndCapture(t.stream, &graph));
    size_t nodes = 0;
    OK(cuGraphGetNodes(graph, nullptr, &nodes));
    CHECK(nodes == 2);
  }
  SUBCASE("not joined") {
    CHECK(cuStreamEndCapture(t.stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
  }
  CHECK(cuEventQuery(fork) == CUDA_ERROR_CAPTURED_EVENT);
  OK(cuStreamSynchronize(other));  // it captures no longer
}

TEST_CASE("what a capture forbids is refused and spoils it") {
  Capturing t;
  CUgraph graph;
  CUdeviceptr p;
  auto spoilt = [&] {
    CHECK(cuStreamEndCapture(t.stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  };
  OK(cuStreamBeginCapture(t.stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  SUBCASE("synchronising it") {
    CHECK(cuStreamSynchronize(t.stream) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    spoilt();
  }
  SUBCASE("allocating") {
    CHECK(cuMemAlloc(&p, 4) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    spoilt();
  }
  SUBCASE("allocating in another thread") {
    std::thread([&] {
      OK(cuCtxSetCurrent(t.context));
      CHECK(cuMemAlloc(&p, 4) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }).join();
    spoilt();
  }
  SUBCASE("but not in a thread that asked for relaxed rules") {
    std::thread([&] {
      OK(cuCtxSetCurrent(t.context));
      CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
      OK(cuThreadExchangeStreamCaptureMode(&mode));
      CHECK(mode == CU_STREAM_CAPTURE_MODE_GLOBAL);
      OK(cuMemAlloc(&p, 4));
    }).join();
    OK(cuStreamEndCapture(t.stream, &graph));
  }
  SUBCASE("waiting for uncaptured work") {
    CUevent outside;
    OK(cuEventCreate(&outside, 0));
    OK(cuEventRecord(outside, CU_STREAM_PER_THREAD));
    CHECK(cuStreamWaitEvent(t.stream, outside, 0) == CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    spoilt();
  }
  CUgraph again;
  CHECK(cuStreamEndCapture(t.stream, &again) == CUDA_ERROR_ILLEGAL_STATE);
}

TEST_CASE("a thread-local capture lets other threads allocate") {
  Capturing t;
  CUgraph graph;
  OK(cuStreamBeginCapture(t.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  std::thread([&] {
    OK(cuCtxSetCurrent(t.context));
    CUdeviceptr p;
    OK(cuMemAlloc(&p, 4));
    CUgraph stolen;
    CHECK(cuStreamEndCapture(t.stream, &stolen) == CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
  }).join();
  OK(cuStreamEndCapture(t.stream, &graph));
}

TEST_CASE("the legacy stream cannot be used while a blocking stream captures") {
  Capturing t;
  CUstream blocking;
  CUgraph graph;
  OK(cuStreamCreate(&blocking, CU_STREAM_DEFAULT));
  OK(cuStreamBeginCapture(blocking, CU_STREAM_CAPTURE_MODE_RELAXED));
  CHECK(cuMemsetD32Async(t.counter, 0, 1, nullptr) == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  CHECK(cuStreamEndCapture(blocking, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  CHECK(cuStreamBeginCapture(nullptr, CU_STREAM_CAPTURE_MODE_GLOBAL) ==
        CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

TEST_CASE("graphs built by hand: kernels, copies, memsets, host functions, children") {
  Capturing t;
  CUgraph graph, child;
  CUgraphNode set, one, copy, host, nested;
  static unsigned result;
  static unsigned seen;
  result = seen = 0;
  OK(cuGraphCreate(&graph, 0));
  OK(cuGraphCreate(&child, 0));
  CUDA_MEMSET_NODE_PARAMS fill{t.counter, 0, 10, 4, 1, 1};
  OK(cuGraphAddMemsetNode(&set, graph, nullptr, 0, &fill, t.context));
  void* parameters[] = {&t.counter};
  CUDA_KERNEL_NODE_PARAMS launch{};
  launch.func = kernel(t.module, "increment");
  launch.gridDimX = launch.gridDimY = launch.gridDimZ = 1;
  launch.blockDimX = launch.blockDimY = launch.blockDimZ = 1;
  launch.kernelParams = parameters;
  OK(cuGraphAddKernelNode(&one, graph, &set, 1, &launch));
  CUgraphNode inner;
  OK(cuGraphAddKernelNode(&inner, child, nullptr, 0, &launch));
  OK(cuGraphAddChildGraphNode(&nested, graph, &one, 1, child));
  CUDA_MEMCPY3D move{};
  move.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  move.srcDevice = t.counter;
  move.dstMemoryType = CU_MEMORYTYPE_HOST;
  move.dstHost = &result;
  move.WidthInBytes = 4;
  move.Height = move.Depth = 1;
  OK(cuGraphAddMemcpyNode(&copy, graph, &nested, 1, &move, t.context));
  CUDA_HOST_NODE_PARAMS call{[](void*) { seen = result; }, nullptr};
  OK(cuGraphAddHostNode(&host, graph, &copy, 1, &call));
  CUgraphExec exec;
  OK(cuGraphInstantiate(&exec, graph, 0));
  OK(cuGraphLaunch(exec, t.stream));
  OK(cuStreamSynchronize(t.stream));
  CHECK(result == 12);
  CHECK(seen == 12);

  SUBCASE("an executable's kernel can be given other parameters") {
    CUdeviceptr elsewhere;
    OK(cuMemAlloc(&elsewhere, 4));
    void* others[] = {&elsewhere};
    launch.kernelParams = others;
    OK(cuGraphExecKernelNodeSetParams(exec, one, &launch));
    OK(cuGraphLaunch(exec, t.stream));
    OK(cuStreamSynchronize(t.stream));
    CHECK(result == 11);
    CUDA_KERNEL_NODE_PARAMS told{};
    OK(cuGraphKernelNodeGetParams(one, &told));
    CHECK(*static_cast<CUdeviceptr*>(told.kernelParams[0]) == t.counter);
  }
  SUBCASE("an executable follows a changed graph of the same shape") {
    fill.value = 100;
    OK(cuGraphMemsetNodeSetParams(set, &fill));
    CUgraphExecUpdateResultInfo info{};
    OK(cuGraphExecUpdate(exec, graph, &info));
    OK(cuGraphLaunch(exec, t.stream));
    OK(cuStreamSynchronize(t.stream));
    CHECK(result == 102);
    CUgraphNode more;
    OK(cuGraphAddEmptyNode(&more, graph, nullptr, 0));
    CHECK(cuGraphExecUpdate(exec, graph, &info) == CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
    CHECK(info.result == CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
  }
  SUBCASE("a cycle cannot be instantiated") {
    OK(cuGraphAddDependencies(graph, &host, &set, nullptr, 1));
    CUgraphExec none;
    CHECK(cuGraphInstantiate(&none, graph, 0) == CUDA_ERROR_INVALID_VALUE);
  }
  SUBCASE("a clone is independent") {
    CUgraph clone;
    CUgraphNode there;
    OK(cuGraphClone(&clone, graph));
    OK(cuGraphNodeFindInClone(&there, set, clone));
    CHECK(there != set);
    OK(cuGraphDestroy(graph));
    size_t nodes = 0;
    OK(cuGraphGetNodes(clone, nullptr, &nodes));
    CHECK(nodes == 5);
  }
}

TEST_CASE("memory that is allocated in a capture stays at its address") {
  Capturing t;
  CUgraph graph;
  CUgraphExec exec;
  CUdeviceptr p;
  OK(cuStreamBeginCapture(t.stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  OK(cuMemAllocAsync(&p, 1024, t.stream));
  OK(cuMemsetD32Async(p, 77, 1, t.stream));
  OK(cuMemcpyDtoDAsync(t.counter, p, 4, t.stream));
  OK(cuMemFreeAsync(p, t.stream));
  OK(cuStreamEndCapture(t.stream, &graph));
  OK(cuGraphInstantiate(&exec, graph, 0));
  OK(cuGraphLaunch(exec, t.stream));
  OK(cuStreamSynchronize(t.stream));
  CHECK(read<unsigned>(t.counter) == 77);
}
