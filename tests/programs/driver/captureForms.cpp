// Captures that the program takes part in: into its own graph, with dependencies of its own, with
// memory, events and other graphs in them.
// SPDX-License-Identifier: Apache-2.0
#include "graph.hpp"

namespace {

CUgraph end_capture(CUstream stream) {
  CUgraph graph = nullptr;
  CHECK(cuStreamEndCapture(stream, &graph));
  return graph;
}

void into_a_graph(Program& program, const Device& device) {
  const CUdeviceptr values = allocate(kValues * 4);
  CUgraph graph = nullptr;
  CHECK(cuGraphCreate(&graph, 0));
  CUcontext context = nullptr;
  CHECK(cuCtxGetCurrent(&context));
  CUgraphNode fill = nullptr, extra = nullptr;
  const CUDA_MEMSET_NODE_PARAMS filled = fill_params(values, 2, kValues);
  CHECK(cuGraphAddMemsetNode(&fill, graph, nullptr, 0, &filled, context));
  const Stream stream;
  CHECK(
      cuStreamBeginCaptureToGraph(stream, graph, &fill, nullptr, 1, CU_STREAM_CAPTURE_MODE_GLOBAL));
  device.launch_step(values, kValues, 3, stream);
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  cuuint64_t id = 0;
  CUgraph captured = nullptr;
  const CUgraphNode* dependencies = nullptr;
  size_t count = 0;
  CHECK(cuStreamGetCaptureInfo(stream, &status, &id, &captured, &dependencies, nullptr, &count));
  program.expect(status == CU_STREAM_CAPTURE_STATUS_ACTIVE && captured == graph && count == 1 &&
                     type_of(dependencies[0]) == CU_GRAPH_NODE_TYPE_KERNEL,
                 "a capture says what it has so far");
  const CUgraphNode kernel = dependencies[0];
  CHECK(cuGraphAddEmptyNode(&extra, graph, &fill, 1));
  CHECK(cuStreamUpdateCaptureDependencies(stream, &extra, nullptr, 1,
                                          CU_STREAM_ADD_CAPTURE_DEPENDENCIES));
  device.launch_step(values, kValues, 5, stream);
  program.expect(end_capture(stream) == graph, "the capture ends with the program's graph");
  const std::vector<CUgraphNode> nodes = nodes_of(graph);
  program.expect(nodes.size() == 4, "which has everything in it");
  CUgraphNode last[4] = {};
  count = 4;
  CHECK(cuGraphNodeGetDependentNodes(extra, last, nullptr, &count));
  program.expect(count == 1 && last[0] != kernel, "the added dependency holds");
  CUgraphExec executable = instantiate(graph);
  run(executable, stream);
  const std::vector<int> out = download(values, kValues);
  program.expect(out == std::vector<int>(kValues, (2 * 3 + 1) * 5 + 1), "and it runs");
  program.save(out);
  // Whoever has the graph need not be told it.
  CHECK(cuStreamBeginCaptureToGraph(stream, graph, nullptr, nullptr, 0,
                                    CU_STREAM_CAPTURE_MODE_GLOBAL));
  device.launch_step(values, kValues, 7, stream);
  CHECK(cuStreamEndCapture(stream, nullptr));
  program.expect(nodes_of(graph).size() == 5, "a capture into a graph ends without naming it");
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuMemFree(values));
}

// Memory that is taken and given back within a capture; a graph launched within a capture.
void memory_and_graphs(Program& program, const Device& device) {
  const CUdeviceptr values = upload(std::vector<int>(kValues, 1));
  const Stream stream;
  CHECK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  device.launch_step(values, kValues, 2, stream);
  const CUgraph inner = end_capture(stream);
  CUgraphExec inner_executable = instantiate(inner);
  CHECK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  CUdeviceptr scratch = 0;
  CHECK(cuMemAllocAsync(&scratch, kValues * 4, stream));
  CHECK(cuMemcpyDtoDAsync(scratch, values, kValues * 4, stream));
  device.launch_step(scratch, kValues, 10, stream);
  CHECK(cuMemcpyDtoDAsync(values, scratch, kValues * 4, stream));
  CHECK(cuMemFreeAsync(scratch, stream));
  const CUgraph graph = end_capture(stream);
  size_t allocations = 0;
  for (CUgraphNode node : nodes_of(graph)) {
    allocations += type_of(node) == CU_GRAPH_NODE_TYPE_MEM_ALLOC;
  }
  program.expect(allocations == 1, "a captured allocation is a node");
  CUDA_GRAPH_INSTANTIATE_PARAMS params{};
  params.flags = CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD;
  params.hUploadStream = stream;
  CUgraphExec executable = nullptr;
  CHECK(cuGraphInstantiateWithParams(&executable, graph, &params));
  program.expect(params.result_out == CUDA_GRAPH_INSTANTIATE_SUCCESS, "it is instantiated");
  CHECK(cuGraphUpload(executable, stream));
  cuuint64_t flags = 7;
  CHECK(cuGraphExecGetFlags(inner_executable, &flags));
  program.expect(flags == 0, "an executable graph knows its flags");
  run(inner_executable, stream);
  run(executable, stream, 2);
  const std::vector<int> out = download(values, kValues);
  program.expect(out == std::vector<int>(kValues, stepped(1 * 2 + 1, 10, 2)), "all of them run");
  program.save(out);
  CHECK(cuGraphExecDestroy(inner_executable));
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(inner));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuMemFree(values));
}

// A graph that is recorded anew at every step, and taken over by what was made of the first: as
// inference servers do it.
void taken_over(Program& program, const Device& device) {
  const CUdeviceptr values = upload(std::vector<int>(kValues, 1));
  const Stream stream;
  CUgraphExec executable = nullptr;
  int expected = 1;
  for (int round = 0; round < 5; ++round) {
    CHECK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    device.launch_step(values, kValues, round + 2, stream);
    CHECK(cuMemsetD32Async(values, static_cast<unsigned>(round), 1, stream));
    const CUgraph graph = end_capture(stream);
    CUgraphExecUpdateResultInfo info{};
    if (executable == nullptr) {
      executable = instantiate(graph);
    } else {
      CHECK(cuGraphExecUpdate(executable, graph, &info));
    }
    CHECK(cuGraphDestroy(graph));
    CHECK(cuGraphLaunch(executable, stream));
    expected = expected * (round + 2) + 1;
  }
  stream.wait();
  const std::vector<int> out = download(values, kValues);
  program.expect(out[0] == 4 && out[1] == expected, "every step ran with its own parameters");
  program.save(out);
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuMemFree(values));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("captureForms", argc, argv);
  const Device device;
  into_a_graph(program, device);
  memory_and_graphs(program, device);
  taken_over(program, device);
  return program.finish();
}
