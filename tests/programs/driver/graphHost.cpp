// Graphs that reach into the program: copies of host memory, host functions, user objects, captured
// and built by hand.
// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <thread>

#include "graph.hpp"

namespace {

constexpr size_t kBytes = kValues * sizeof(int);

void wait_for(const std::atomic<int>& value, int wanted) {
  while (value.load() < wanted) std::this_thread::yield();  // the test's own limit is the guard
}

CUgraph end_capture(CUstream stream) {
  CUgraph graph = nullptr;
  CHECK(cuStreamEndCapture(stream, &graph));
  return graph;
}

// What a launch reads and writes is the host memory's content at that launch.
void captured_copies(Program& program, const Device& device, size_t count, bool pinned) {
  std::vector<int> pageable_in(count, 1), pageable_out(count, 0);
  int *in = pageable_in.data(), *out = pageable_out.data();
  if (pinned) {
    CHECK(cuMemHostAlloc(reinterpret_cast<void**>(&in), count * 4, 0));
    CHECK(cuMemHostAlloc(reinterpret_cast<void**>(&out), count * 4, 0));
    std::fill(in, in + count, 1);
  }
  const CUdeviceptr values = allocate(count * 4);
  const Stream stream;
  CHECK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  CHECK(cuMemcpyHtoDAsync(values, in, count * 4, stream));
  device.launch_step(values, static_cast<int>(count), 3, stream);
  CHECK(cuMemcpyDtoHAsync(out, values, count * 4, stream));
  const CUgraph graph = end_capture(stream);
  program.expect(nodes_of(graph).size() == 3, "three operations are three nodes");
  CUgraphExec executable = instantiate(graph);
  CHECK(cuGraphDestroy(graph));
  for (int round = 0; round < 4; ++round) {
    std::fill(in, in + count, round);
    std::fill(out, out + count, -1);
    run(executable, stream);
    program.expect(std::count(out, out + count, round * 3 + 1) == static_cast<long>(count),
                   "a launch copies what is there when it is launched");
    program.save(out, count * 4);
  }
  // Launches on different streams follow one another.
  const Stream other;
  std::fill(in, in + count, 5);
  CHECK(cuGraphLaunch(executable, stream));
  run(executable, other);
  program.expect(std::count(out, out + count, 16) == static_cast<long>(count),
                 "also from another stream");
  stream.wait();
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuMemFree(values));
  if (pinned) {
    CHECK(cuMemFreeHost(in));
    CHECK(cuMemFreeHost(out));
  }
}

// Pinned: what a graph copies from pageable memory, the driver may read when the graph is launched.
struct Between {
  Between() {
    CHECK(cuMemHostAlloc(reinterpret_cast<void**>(&read), kBytes, 0));
    CHECK(cuMemHostAlloc(reinterpret_cast<void**>(&write), kBytes, 0));
  }
  ~Between() {
    CHECK(cuMemFreeHost(read));
    CHECK(cuMemFreeHost(write));
  }
  Between(const Between&) = delete;
  Between& operator=(const Between&) = delete;

  int* read = nullptr;
  int* write = nullptr;
  std::atomic<int> calls{0};
};

// A function between two copies sees what was copied, and what it writes is copied.
void CUDA_CB pass_on(void* data) {
  auto* between = static_cast<Between*>(data);
  for (int i = 0; i < kValues; ++i) between->write[i] = between->read[i] * 10;
  ++between->calls;
}

void captured_function(Program& program, const Device& device) {
  Between between;
  const CUdeviceptr values = upload(std::vector<int>(kValues, 1));
  const Stream stream;
  CHECK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  device.launch_step(values, kValues, 2, stream);
  CHECK(cuMemcpyDtoHAsync(between.read, values, kBytes, stream));
  CHECK(cuLaunchHostFunc(stream, pass_on, &between));
  CHECK(cuMemcpyHtoDAsync(values, between.write, kBytes, stream));
  device.launch_step(values, kValues, 1, stream);
  const CUgraph graph = end_capture(stream);
  CUgraphExec executable = instantiate(graph);
  int expected = 1;
  for (int round = 0; round < 3; ++round) {
    run(executable, stream);
    expected = (expected * 2 + 1) * 10 + 1;
    const std::vector<int> out = download(values, kValues);
    program.expect(out == std::vector<int>(kValues, expected),
                   "what the function made of it goes on");
    program.save(out);
  }
  program.expect(between.calls == 3, "the function ran at every launch");
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuMemFree(values));
}

void CUDA_CB count_call(void* data) { ++*static_cast<std::atomic<int>*>(data); }

// Host nodes and copies of host memory, added, asked for and changed by hand.
void by_hand(Program& program) {
  std::atomic<int> first{0}, second{0}, third{0};
  std::vector<int> in(kValues, 7), others(kValues, 8), out(kValues, 0);
  const CUdeviceptr values = allocate(kBytes);
  CUcontext context = nullptr;
  CHECK(cuCtxGetCurrent(&context));
  CUgraph graph = nullptr;
  CHECK(cuGraphCreate(&graph, 0));
  CUgraphNode load = nullptr, call = nullptr, store = nullptr;
  const CUDA_MEMCPY3D loads = upload_params(values, in.data(), kBytes);
  CHECK(cuGraphAddMemcpyNode(&load, graph, nullptr, 0, &loads, context));
  const CUDA_HOST_NODE_PARAMS counts{count_call, &first};
  CHECK(cuGraphAddHostNode(&call, graph, &load, 1, &counts));
  const CUDA_MEMCPY3D stores = download_params(out.data(), values, kBytes);
  CHECK(cuGraphAddMemcpyNode(&store, graph, &call, 1, &stores, context));
  CUDA_HOST_NODE_PARAMS told{};
  CHECK(cuGraphHostNodeGetParams(call, &told));
  program.expect(told.fn == count_call && told.userData == &first, "a host node's come back");
  CUDA_MEMCPY3D copy_told{};
  CHECK(cuGraphMemcpyNodeGetParams(load, &copy_told));
  program.expect(copy_told.srcHost == in.data() && copy_told.dstDevice == values &&
                     copy_told.srcMemoryType == CU_MEMORYTYPE_HOST,
                 "and those of a copy from host memory");
  const Stream stream;
  CUgraphExec executable = instantiate(graph);
  run(executable, stream, 2);
  program.expect(first == 2 && out == in, "both run");
  program.save(out);
  const CUDA_HOST_NODE_PARAMS counts_second{count_call, &second};
  CHECK(cuGraphExecHostNodeSetParams(executable, call, &counts_second));
  const CUDA_MEMCPY3D loads_others = upload_params(values, others.data(), kBytes);
  CHECK(cuGraphExecMemcpyNodeSetParams(executable, load, &loads_others, context));
  run(executable, stream);
  program.expect(first == 2 && second == 1 && out == others, "the executable graph was changed");
  program.save(out);
  const CUDA_HOST_NODE_PARAMS counts_third{count_call, &third};
  CHECK(cuGraphHostNodeSetParams(call, &counts_third));
  CHECK(cuGraphMemcpyNodeSetParams(load, &loads));
  CUgraphExecUpdateResultInfo info{};
  CHECK(cuGraphExecUpdate(executable, graph, &info));
  program.expect(info.result == CU_GRAPH_EXEC_UPDATE_SUCCESS, "an update by the whole graph");
  run(executable, stream);
  program.expect(second == 1 && third == 1 && out == in, "brings what the graph has now");
  // A graph of another shape cannot be taken.
  CUgraphNode more = nullptr;
  CHECK(cuGraphAddEmptyNode(&more, graph, nullptr, 0));
  program.expect(
      cuGraphExecUpdate(executable, graph, &info) == CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE &&
          info.result == CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED,
      "another shape is refused (910)");
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuMemFree(values));
}

// Rows of host memory with gaps between them.
void rows(Program& program) {
  constexpr size_t kWidth = 24, kHeight = 5, kPitch = 40;
  std::vector<uint8_t> in(kPitch * kHeight), out(kPitch * kHeight, 0xee);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<uint8_t>(i);
  const CUdeviceptr values = allocate(kWidth * kHeight);
  const Stream stream;
  CUDA_MEMCPY2D copy{};
  copy.srcMemoryType = CU_MEMORYTYPE_HOST;
  copy.srcHost = in.data();
  copy.srcPitch = kPitch;
  copy.srcXInBytes = 8;
  copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  copy.dstDevice = values;
  copy.dstPitch = kWidth;
  copy.WidthInBytes = kWidth;
  copy.Height = kHeight;
  CHECK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  CHECK(cuMemcpy2DAsync(&copy, stream));
  copy.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  copy.srcDevice = values;
  copy.srcPitch = kWidth;
  copy.srcXInBytes = 0;
  copy.dstMemoryType = CU_MEMORYTYPE_HOST;
  copy.dstHost = out.data();
  copy.dstPitch = kPitch;
  copy.dstXInBytes = 4;
  CHECK(cuMemcpy2DAsync(&copy, stream));
  const CUgraph graph = end_capture(stream);
  CUgraphExec executable = instantiate(graph);
  run(executable, stream);
  bool right = true;
  for (size_t y = 0; y < kHeight; ++y) {
    for (size_t x = 0; x < kPitch; ++x) {
      const bool inside = x >= 4 && x < 4 + kWidth;
      right = right && out[y * kPitch + x] == (inside ? in[y * kPitch + x + 4] : 0xee);
    }
  }
  program.expect(right, "rows come and go, gaps stay");
  program.save(out);
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuMemFree(values));
}

// What lives as long as graphs do.
void user_objects(Program& program) {
  std::atomic<int> destroyed{0};
  CUuserObject object = nullptr;
  CHECK(cuUserObjectCreate(&object, &destroyed, count_call, 2, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
  CHECK(cuUserObjectRetain(object, 1));
  CHECK(cuUserObjectRelease(object, 2));
  program.expect(destroyed == 0, "one reference is left");
  CUgraph graph = nullptr;
  CHECK(cuGraphCreate(&graph, 0));
  CUgraphNode node = nullptr;
  CHECK(cuGraphAddEmptyNode(&node, graph, nullptr, 0));
  CHECK(cuGraphRetainUserObject(graph, object, 1, 0));
  CHECK(cuGraphReleaseUserObject(graph, object, 1));
  CHECK(cuGraphRetainUserObject(graph, object, 1, CU_GRAPH_USER_OBJECT_MOVE));
  CUgraphExec executable = instantiate(graph);
  CHECK(cuGraphDestroy(graph));
  const Stream stream;
  run(executable, stream);
  program.expect(destroyed == 0, "the executable graph has it");
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuCtxSynchronize());
  wait_for(destroyed, 1);
  program.expect(destroyed == 1, "it ends with the last graph");
  CHECK(cuUserObjectCreate(&object, &destroyed, count_call, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
  CHECK(cuUserObjectRelease(object, 1));
  wait_for(destroyed, 2);
  program.expect(destroyed == 2, "and so does one that no graph has");
}

}  // namespace

int main(int argc, char** argv) {
  Program program("graphHost", argc, argv);
  const Device device;
  captured_copies(program, device, kValues, false);
  captured_copies(program, device, kValues, true);
  captured_copies(program, device, 300'000, false);
  captured_function(program, device);
  by_hand(program);
  rows(program);
  user_objects(program);
  return program.finish();
}
