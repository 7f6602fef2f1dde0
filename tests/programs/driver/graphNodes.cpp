// Graphs built node by node: every kind of node, its parameters, edges, clones, and what it
// computes. SPDX-License-Identifier: Apache-2.0
#include "graph.hpp"

namespace {

struct Module {
  Module() {
    CHECK(cuModuleLoadData(&module, kKernels));
    step = step_of(module);
  }
  ~Module() { CHECK(cuModuleUnload(module)); }
  CUmodule module = nullptr;
  CUfunction step = nullptr;
};

bool same_copy(const CUDA_MEMCPY3D& a, const CUDA_MEMCPY3D& b) {
  return a.srcMemoryType == b.srcMemoryType && a.dstMemoryType == b.dstMemoryType &&
         a.WidthInBytes == b.WidthInBytes && a.Height == b.Height && a.Depth == b.Depth;
}

// fill → kernel → copy, with an empty node between; parameters come back as they were given.
void linear(Program& program, const Module& module) {
  const CUdeviceptr a = allocate(kValues * 4), b = allocate(kValues * 4);
  CUgraph graph = nullptr;
  CHECK(cuGraphCreate(&graph, 0));
  CUcontext context = nullptr;
  CHECK(cuCtxGetCurrent(&context));

  CUgraphNode fill = nullptr, empty = nullptr, kernel = nullptr, copy = nullptr;
  const CUDA_MEMSET_NODE_PARAMS filled = fill_params(a, 5, kValues);
  CHECK(cuGraphAddMemsetNode(&fill, graph, nullptr, 0, &filled, context));
  CHECK(cuGraphAddEmptyNode(&empty, graph, &fill, 1));
  StepArguments arguments(a, 3);
  const CUDA_KERNEL_NODE_PARAMS stepped_by_3 = step_params(module.step, arguments);
  CHECK(cuGraphAddKernelNode(&kernel, graph, &empty, 1, &stepped_by_3));
  const CUDA_MEMCPY3D copied = copy_params(b, a, kValues * 4);
  CHECK(cuGraphAddMemcpyNode(&copy, graph, &kernel, 1, &copied, context));

  program.expect(type_of(fill) == CU_GRAPH_NODE_TYPE_MEMSET &&
                     type_of(empty) == CU_GRAPH_NODE_TYPE_EMPTY &&
                     type_of(kernel) == CU_GRAPH_NODE_TYPE_KERNEL &&
                     type_of(copy) == CU_GRAPH_NODE_TYPE_MEMCPY,
                 "nodes say of which kind they are");
  CUDA_MEMSET_NODE_PARAMS fill_told{};
  CHECK(cuGraphMemsetNodeGetParams(fill, &fill_told));
  program.expect(fill_told.dst == a && fill_told.value == 5 && fill_told.elementSize == 4 &&
                     fill_told.width == kValues && fill_told.height == 1,
                 "a fill's parameters come back");
  CUDA_KERNEL_NODE_PARAMS kernel_told{};
  CHECK(cuGraphKernelNodeGetParams(kernel, &kernel_told));
  program.expect(kernel_told.func == module.step && kernel_told.gridDimX == 2 &&
                     kernel_told.blockDimX == 128 && kernel_told.kernelParams != nullptr &&
                     *static_cast<CUdeviceptr*>(kernel_told.kernelParams[0]) == a &&
                     *static_cast<int*>(kernel_told.kernelParams[2]) == 3,
                 "a kernel's parameters come back");
  CUDA_MEMCPY3D copy_told{};
  CHECK(cuGraphMemcpyNodeGetParams(copy, &copy_told));
  program.expect(same_copy(copy_told, copied) && copy_told.srcDevice == a,
                 "a copy's parameters come back");
  CUDA_MEMSET_NODE_PARAMS wrong{};
  program.expect(cuGraphMemsetNodeGetParams(kernel, &wrong) == CUDA_ERROR_INVALID_VALUE,
                 "a kernel has no parameters of a fill");

  const Stream stream;
  CUgraphExec executable = instantiate(graph);
  run(executable, stream);
  const std::vector<int> first = download(b, kValues);
  program.expect(first == std::vector<int>(kValues, 16), "5 * 3 + 1");
  program.save(first);
  CHECK(cuGraphExecDestroy(executable));

  // Changed parameters hold for what is made of the graph from then on.
  StepArguments others(a, 7);
  const CUDA_KERNEL_NODE_PARAMS by_7 = step_params(module.step, others);
  CHECK(cuGraphKernelNodeSetParams(kernel, &by_7));
  const CUDA_MEMSET_NODE_PARAMS with_2 = fill_params(a, 2, kValues);
  CHECK(cuGraphMemsetNodeSetParams(fill, &with_2));
  const CUDA_MEMCPY3D half = copy_params(b, a, kValues * 2);
  CHECK(cuGraphMemcpyNodeSetParams(copy, &half));
  executable = instantiate(graph);
  run(executable, stream);
  const std::vector<int> second = download(b, kValues);
  program.expect(second.front() == 15 && second.back() == 16, "2 * 7 + 1 in one half");
  program.save(second);
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuMemFree(a));
  CHECK(cuMemFree(b));
}

void structure(Program& program) {
  CUgraph graph = nullptr;
  CHECK(cuGraphCreate(&graph, 0));
  CUgraphNode node[4] = {};
  CHECK(cuGraphAddEmptyNode(&node[0], graph, nullptr, 0));
  CHECK(cuGraphAddEmptyNode(&node[1], graph, &node[0], 1));
  CHECK(cuGraphAddEmptyNode(&node[2], graph, &node[0], 1));
  CHECK(cuGraphAddEmptyNode(&node[3], graph, &node[1], 2));
  size_t count = 0;
  CHECK(cuGraphGetNodes(graph, nullptr, &count));
  program.expect(count == 4, "there are four nodes");
  CUgraphNode roots[4] = {node[3], node[3], node[3], node[3]};
  count = 4;
  CHECK(cuGraphGetRootNodes(graph, roots, &count));
  program.expect(count == 1 && roots[0] == node[0] && roots[1] == nullptr, "one is a root");
  CUgraphNode from[8] = {}, to[8] = {};
  CHECK(cuGraphGetEdges(graph, nullptr, nullptr, nullptr, &count));
  program.expect(count == 4, "there are four edges");
  count = 8;
  CUgraphEdgeData data[8];
  CHECK(cuGraphGetEdges(graph, from, to, data, &count));
  program.expect(count == 4 && std::count(from, from + 4, node[0]) == 2 &&
                     std::count(to, to + 4, node[3]) == 2,
                 "the edges are those of the dependencies");
  CUgraphNode some[4] = {};
  count = 4;
  CHECK(cuGraphNodeGetDependencies(node[3], some, data, &count));
  program.expect(count == 2 && std::count(some, some + 2, node[1]) == 1, "what a node waits for");
  count = 4;
  CHECK(cuGraphNodeGetDependentNodes(node[0], some, data, &count));
  program.expect(count == 2 && std::count(some, some + 2, node[2]) == 1, "what waits for a node");

  CHECK(cuGraphRemoveDependencies(graph, &node[2], &node[3], nullptr, 1));
  count = 0;
  CHECK(cuGraphGetEdges(graph, nullptr, nullptr, nullptr, &count));
  program.expect(count == 3, "an edge is gone");
  CHECK(cuGraphAddDependencies(graph, &node[1], &node[2], nullptr, 1));
  CHECK(cuGraphDestroyNode(node[3]));
  CHECK(cuGraphGetNodes(graph, nullptr, &count));
  program.expect(count == 3, "a node is gone");
  program.expect(cuGraphNodeGetType(node[3], nullptr) != CUDA_SUCCESS, "and its handle with it");

  CUgraph clone = nullptr;
  CHECK(cuGraphClone(&clone, graph));
  CUgraphNode twin = nullptr;
  CHECK(cuGraphNodeFindInClone(&twin, node[1], clone));
  const std::vector<CUgraphNode> cloned = nodes_of(clone);
  program.expect(twin != node[1] && std::count(cloned.begin(), cloned.end(), twin) == 1,
                 "a clone has nodes of its own, which are found by the originals");
  const std::string path = "/tmp/graph-" + std::to_string(reinterpret_cast<uintptr_t>(&path));
  CHECK(cuGraphDebugDotPrint(graph, path.c_str(), 0));
  std::FILE* file = std::fopen(path.c_str(), "r");
  char text[16] = {};
  program.expect(
      file != nullptr && std::fread(text, 1, 7, file) == 7 && std::strcmp(text, "digraph") == 0,
      "the graph is written in DOT");
  if (file != nullptr) std::fclose(file);
  std::remove(path.c_str());
  CHECK(cuGraphDestroy(clone));
  CHECK(cuGraphDestroy(graph));
}

void children(Program& program, const Module& module) {
  const CUdeviceptr values = upload(std::vector<int>(kValues, 1));
  CUgraph child = nullptr, graph = nullptr;
  CHECK(cuGraphCreate(&child, 0));
  CHECK(cuGraphCreate(&graph, 0));
  StepArguments arguments(values, 2);
  CUgraphNode inner = nullptr;
  const CUDA_KERNEL_NODE_PARAMS params = step_params(module.step, arguments);
  CHECK(cuGraphAddKernelNode(&inner, child, nullptr, 0, &params));
  CUgraphNode first = nullptr, second = nullptr;
  CHECK(cuGraphAddChildGraphNode(&first, graph, nullptr, 0, child));
  CHECK(cuGraphAddChildGraphNode(&second, graph, &first, 1, child));
  CUgraph inside = nullptr, again = nullptr;
  CHECK(cuGraphChildGraphNodeGetGraph(first, &inside));
  CHECK(cuGraphChildGraphNodeGetGraph(first, &again));
  program.expect(inside == again && inside != child, "a child node has a graph of its own");
  program.expect(nodes_of(inside).size() == 1, "with the same nodes in it");
  program.expect(cuGraphDestroy(inside) != CUDA_SUCCESS, "which cannot be destroyed by itself");
  const Stream stream;
  CUgraphExec executable = instantiate(graph);
  run(executable, stream);
  std::vector<int> out = download(values, kValues);
  program.expect(out == std::vector<int>(kValues, stepped(1, 2, 2)), "both children run");
  program.save(out);
  // Only this executable's child steps by 5.
  StepArguments others(values, 5);
  const CUDA_KERNEL_NODE_PARAMS by_5 = step_params(module.step, others);
  CHECK(cuGraphKernelNodeSetParams(inner, &by_5));
  CHECK(cuGraphExecChildGraphNodeSetParams(executable, second, child));
  upload_to(values, std::vector<int>(kValues, 1).data(), kValues * 4);
  run(executable, stream);
  out = download(values, kValues);
  program.expect(out == std::vector<int>(kValues, (1 * 2 + 1) * 5 + 1), "one child was changed");
  program.save(out);
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuGraphDestroy(child));
  CHECK(cuMemFree(values));
}

// Events that a graph records and waits for, and words that it writes and waits for.
void order_with_others(Program& program, const Module& module) {
  const CUdeviceptr values = upload(std::vector<int>(kValues, 1));
  const CUdeviceptr word = upload({0});
  CUevent begun = nullptr, done = nullptr;
  CHECK(cuEventCreate(&begun, CU_EVENT_DISABLE_TIMING));
  CHECK(cuEventCreate(&done, CU_EVENT_DISABLE_TIMING));
  CUgraph graph = nullptr;
  CHECK(cuGraphCreate(&graph, 0));
  CUgraphNode wait = nullptr, kernel = nullptr, write = nullptr, record = nullptr;
  CHECK(cuGraphAddEventWaitNode(&wait, graph, nullptr, 0, done));
  CHECK(cuGraphEventWaitNodeSetEvent(wait, begun));
  StepArguments arguments(values, 3);
  const CUDA_KERNEL_NODE_PARAMS params = step_params(module.step, arguments);
  CHECK(cuGraphAddKernelNode(&kernel, graph, &wait, 1, &params));
  CUstreamBatchMemOpParams operation{};
  operation.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
  operation.writeValue.address = word;
  operation.writeValue.value = 41;
  CUcontext context = nullptr;
  CHECK(cuCtxGetCurrent(&context));
  CUDA_BATCH_MEM_OP_NODE_PARAMS operations{context, 1, &operation, 0};
  CHECK(cuGraphAddBatchMemOpNode(&write, graph, &kernel, 1, &operations));
  operation.writeValue.value = 42;
  CHECK(cuGraphBatchMemOpNodeSetParams(write, &operations));
  CUDA_BATCH_MEM_OP_NODE_PARAMS told{};
  CHECK(cuGraphBatchMemOpNodeGetParams(write, &told));
  program.expect(told.count == 1 && told.paramArray[0].writeValue.address == word &&
                     told.paramArray[0].writeValue.value == 42,
                 "memory operations come back");
  CHECK(cuGraphAddEventRecordNode(&record, graph, &write, 1, begun));
  CHECK(cuGraphEventRecordNodeSetEvent(record, done));
  CUevent event = nullptr;
  CHECK(cuGraphEventRecordNodeGetEvent(record, &event));
  program.expect(event == done, "the recorded event comes back");
  CHECK(cuGraphEventWaitNodeGetEvent(wait, &event));
  program.expect(event == begun, "and the one that is waited for");

  const Stream one, other, third;
  CUgraphExec executable = instantiate(graph);
  for (unsigned round = 0; round < 3; ++round) {
    CHECK(cuStreamWaitValue32(one, word, 100 + round, CU_STREAM_WAIT_VALUE_EQ));
    CHECK(cuEventRecord(begun, one));
    CHECK(cuGraphLaunch(executable, other));
    // Until its node runs the event is what the launch before made of it, so both answers are
    // right. Neither says that the graph has run.
    const CUresult early = cuEventQuery(done);
    program.expect(early == CUDA_SUCCESS || early == CUDA_ERROR_NOT_READY,
                   "the event can be asked");
    program.expect(cuStreamQuery(other) == CUDA_ERROR_NOT_READY, "the graph waits for its event");
    CHECK(cuMemsetD32Async(word, 100 + round, 1, third));
    other.wait();
    CHECK(cuEventSynchronize(done));
    program.expect(cuEventQuery(done) == CUDA_SUCCESS, "the graph recorded the event");
    program.expect(download(word, 1)[0] == 42, "the graph wrote the word");
  }
  CHECK(cuStreamWaitEvent(one, done, 0));
  one.wait();
  const std::vector<int> out = download(values, kValues);
  program.expect(out == std::vector<int>(kValues, stepped(1, 3, 3)), "every launch did its step");
  program.save(out);
  operation.writeValue.value = 7;
  CHECK(cuGraphExecBatchMemOpNodeSetParams(executable, write, &operations));
  CHECK(cuGraphExecEventRecordNodeSetEvent(executable, record, begun));
  CHECK(cuGraphExecEventWaitNodeSetEvent(executable, wait, done));
  run(executable, other);
  program.expect(download(word, 1)[0] == 7, "the executable graph's operation was changed");
  CHECK(cuEventSynchronize(begun));
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuEventDestroy(begun));
  CHECK(cuEventDestroy(done));
  CHECK(cuMemFree(values));
  CHECK(cuMemFree(word));
}

void memory(Program& program, const Module& module, CUdevice device) {
  CUgraph graph = nullptr;
  CHECK(cuGraphCreate(&graph, 0));
  CUDA_MEM_ALLOC_NODE_PARAMS wanted{};
  wanted.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  wanted.poolProps.location = {CU_MEM_LOCATION_TYPE_DEVICE, device};
  wanted.bytesize = kValues * 4;
  CUgraphNode allocation = nullptr, fill = nullptr, kernel = nullptr, copy = nullptr, end = nullptr;
  CHECK(cuGraphAddMemAllocNode(&allocation, graph, nullptr, 0, &wanted));
  program.expect(wanted.dptr != 0, "a graph's memory has an address at once");
  CUDA_MEM_ALLOC_NODE_PARAMS told{};
  CHECK(cuGraphMemAllocNodeGetParams(allocation, &told));
  program.expect(told.dptr == wanted.dptr && told.bytesize == wanted.bytesize &&
                     told.poolProps.location.id == device,
                 "an allocation's parameters come back");
  const CUdeviceptr out = allocate(kValues * 4);
  CUcontext context = nullptr;
  CHECK(cuCtxGetCurrent(&context));
  const CUDA_MEMSET_NODE_PARAMS filled = fill_params(wanted.dptr, 9, kValues);
  CHECK(cuGraphAddMemsetNode(&fill, graph, &allocation, 1, &filled, context));
  StepArguments arguments(wanted.dptr, 3);
  const CUDA_KERNEL_NODE_PARAMS params = step_params(module.step, arguments);
  CHECK(cuGraphAddKernelNode(&kernel, graph, &fill, 1, &params));
  const CUDA_MEMCPY3D copied = copy_params(out, wanted.dptr, kValues * 4);
  CHECK(cuGraphAddMemcpyNode(&copy, graph, &kernel, 1, &copied, context));
  CHECK(cuGraphAddMemFreeNode(&end, graph, &copy, 1, wanted.dptr));
  CUdeviceptr freed = 0;
  CHECK(cuGraphMemFreeNodeGetParams(end, &freed));
  program.expect(freed == wanted.dptr && type_of(end) == CU_GRAPH_NODE_TYPE_MEM_FREE &&
                     type_of(allocation) == CU_GRAPH_NODE_TYPE_MEM_ALLOC,
                 "memory nodes say what they are");
  const Stream stream;
  CUgraphExec executable = instantiate(graph);
  run(executable, stream, 2);
  const std::vector<int> result = download(out, kValues);
  program.expect(result == std::vector<int>(kValues, 28), "9 * 3 + 1 in the graph's memory");
  program.save(result);
  cuuint64_t used = 0;
  CHECK(cuDeviceGetGraphMemAttribute(device, CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH, &used));
  used = 0;
  CHECK(cuDeviceSetGraphMemAttribute(device, CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH, &used));
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuDeviceGraphMemTrim(device));
  CHECK(cuMemFree(out));
}

// The newest form: one function for all kinds of nodes.
void generic(Program& program, const Module& module) {
  const CUdeviceptr values = upload(std::vector<int>(kValues, 1));
  CUgraph graph = nullptr;
  CHECK(cuGraphCreate(&graph, 0));
  StepArguments arguments(values, 4);
  const CUDA_KERNEL_NODE_PARAMS step = step_params(module.step, arguments);
  CUgraphNodeParams params{};
  params.type = CU_GRAPH_NODE_TYPE_KERNEL;
  params.kernel.func = step.func;
  params.kernel.gridDimX = step.gridDimX;
  params.kernel.gridDimY = params.kernel.gridDimZ = 1;
  params.kernel.blockDimX = step.blockDimX;
  params.kernel.blockDimY = params.kernel.blockDimZ = 1;
  params.kernel.kernelParams = step.kernelParams;
  CUgraphNode kernel = nullptr, second = nullptr;
  CHECK(cuGraphAddNode(&kernel, graph, nullptr, nullptr, 0, &params));
  CHECK(cuGraphAddNode(&second, graph, &kernel, nullptr, 1, &params));
  arguments.factor = 5;
  CHECK(cuGraphNodeSetParams(second, &params));
  const Stream stream;
  CUgraphExec executable = instantiate(graph);
  run(executable, stream);
  std::vector<int> out = download(values, kValues);
  program.expect(out == std::vector<int>(kValues, (1 * 4 + 1) * 5 + 1), "both nodes run");
  program.save(out);
  arguments.factor = 6;
  CHECK(cuGraphExecNodeSetParams(executable, kernel, &params));
  unsigned enabled = 0;
  CHECK(cuGraphNodeSetEnabled(executable, second, 0));
  CHECK(cuGraphNodeGetEnabled(executable, second, &enabled));
  program.expect(enabled == 0, "a node is switched off");
  upload_to(values, std::vector<int>(kValues, 1).data(), kValues * 4);
  run(executable, stream);
  out = download(values, kValues);
  program.expect(out == std::vector<int>(kValues, 7), "only the other runs, with its new factor");
  program.save(out);
  CUkernelNodeAttrValue value{};
  value.cooperative = 1;
  CHECK(cuGraphKernelNodeSetAttribute(kernel, CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &value));
  CHECK(cuGraphKernelNodeCopyAttributes(second, kernel));
  value.cooperative = 0;
  CHECK(cuGraphKernelNodeGetAttribute(second, CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &value));
  program.expect(value.cooperative == 1, "attributes are copied from node to node");
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuMemFree(values));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("graphNodes", argc, argv);
  const Device device;
  const Module module;
  linear(program, module);
  structure(program);
  children(program, module);
  order_with_others(program, module);
  memory(program, module, device.device());
  generic(program, module);
  return program.finish();
}
