// Conditional nodes: what the default values of their conditions make graphs run.
// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"
#include "graph.hpp"

namespace {

struct Conditional {
  CUgraphNode node = nullptr;
  std::vector<CUgraph> bodies;
};

CUgraphConditionalHandle condition(CUgraph graph, unsigned value) {
  CUgraphConditionalHandle handle = 0;
  CUcontext context = nullptr;
  CHECK(cuCtxGetCurrent(&context));
  CHECK(
      cuGraphConditionalHandleCreate(&handle, graph, context, value, CU_GRAPH_COND_ASSIGN_DEFAULT));
  return handle;
}

CUresult try_add(CUgraph graph, CUgraphConditionalHandle handle, CUgraphConditionalNodeType type,
                 unsigned size, Conditional* out) {
  CUgraphNodeParams params{};
  params.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
  params.conditional.handle = handle;
  params.conditional.type = type;
  params.conditional.size = size;
  CHECK(cuCtxGetCurrent(&params.conditional.ctx));
  const CUresult result = cuGraphAddNode(&out->node, graph, nullptr, nullptr, 0, &params);
  if (result == CUDA_SUCCESS) {
    out->bodies.assign(params.conditional.phGraph_out, params.conditional.phGraph_out + size);
  }
  return result;
}

// A node whose every body adds a number of its own to a word: 1, 10, 100.
Conditional add(CUgraph graph, unsigned value, CUgraphConditionalNodeType type, unsigned size,
                CUdeviceptr word) {
  Conditional made;
  CHECK(try_add(graph, condition(graph, value), type, size, &made));
  int number = 1;
  for (CUgraph body : made.bodies) {
    CUDA_MEMSET_NODE_PARAMS fill{};
    fill.dst = word;
    fill.value = static_cast<unsigned>(number);
    fill.elementSize = 4;
    fill.width = fill.height = 1;
    CUcontext context = nullptr;
    CUgraphNode node = nullptr;
    CHECK(cuCtxGetCurrent(&context));
    CHECK(cuGraphAddMemsetNode(&node, body, nullptr, 0, &fill, context));
    number *= 10;
  }
  return made;
}

void values(Program& program) {
  struct Case {
    unsigned value;
    CUgraphConditionalNodeType type;
    unsigned size;
    int expected;
  };
  const Case cases[] = {
      {1, CU_GRAPH_COND_TYPE_IF, 1, 1},       {0, CU_GRAPH_COND_TYPE_IF, 1, 0},
      {7, CU_GRAPH_COND_TYPE_IF, 2, 1},       {0, CU_GRAPH_COND_TYPE_IF, 2, 10},
      {0, CU_GRAPH_COND_TYPE_WHILE, 1, 0},    {0, CU_GRAPH_COND_TYPE_SWITCH, 3, 1},
      {2, CU_GRAPH_COND_TYPE_SWITCH, 3, 100}, {3, CU_GRAPH_COND_TYPE_SWITCH, 3, 0},
  };
  std::vector<int> seen;
  for (const Case& one : cases) {
    const CUdeviceptr word = upload({0});
    CUgraph graph = nullptr;
    CUgraphExec executable = nullptr;
    CHECK(cuGraphCreate(&graph, 0));
    add(graph, one.value, one.type, one.size, word);
    CHECK(cuGraphInstantiate(&executable, graph, 0));
    for (int i = 0; i < 2; ++i) {  // every launch begins with the default
      CHECK(cuMemsetD32(word, 0, 1));
      CHECK(cuGraphLaunch(executable, nullptr));
      CHECK(cuCtxSynchronize());
      seen.push_back(download(word, 1)[0]);
      program.expect(seen.back() == one.expected, "the body that the condition names has run");
    }
    CHECK(cuGraphExecDestroy(executable));
    CHECK(cuGraphDestroy(graph));
    CHECK(cuMemFree(word));
  }
  program.save(seen);
}

void structure(Program& program) {
  CUgraph graph = nullptr, clone = nullptr;
  CHECK(cuGraphCreate(&graph, 0));
  const CUdeviceptr word = upload({0});
  const Conditional made = add(graph, 1, CU_GRAPH_COND_TYPE_SWITCH, 3, word);
  CUgraphNodeType type = CU_GRAPH_NODE_TYPE_EMPTY;
  CHECK(cuGraphNodeGetType(made.node, &type));
  program.expect(type == CU_GRAPH_NODE_TYPE_CONDITIONAL, "the node is a conditional one");
  bool right = made.bodies.size() == 3;
  for (CUgraph body : made.bodies) {
    size_t count = 0;
    CHECK(cuGraphGetNodes(body, nullptr, &count));
    right = right && count == 1;
  }
  program.expect(right, "its bodies have the nodes that were added to them");
  // A body may hold a conditional node in its turn.
  add(made.bodies[1], 1, CU_GRAPH_COND_TYPE_IF, 1, word);
  program.expect(cuGraphClone(&clone, graph) != CUDA_SUCCESS, "such graphs are not cloned");

  Conditional refused;
  const CUgraphConditionalHandle handle = condition(graph, 0);
  program.expect(try_add(graph, handle, CU_GRAPH_COND_TYPE_WHILE, 2, &refused) != CUDA_SUCCESS,
                 "a loop has one body");
  program.expect(try_add(graph, handle, CU_GRAPH_COND_TYPE_IF, 3, &refused) != CUDA_SUCCESS,
                 "a decision has two at most");
  CHECK(cuGraphDestroy(graph));
  CHECK(cuMemFree(word));
}

// Attributes of kernel nodes are kept, copied, and asked for.
void attributes(Program& program) {
  CUgraph graph = nullptr;
  CUgraphNode first = nullptr, second = nullptr;
  CUmodule module = nullptr;
  CUfunction step = nullptr;
  CHECK(cuModuleLoadData(&module, kKernels));
  CHECK(cuModuleGetFunction(&step, module, "step"));
  CHECK(cuGraphCreate(&graph, 0));
  const CUdeviceptr word = upload({5});
  CUdeviceptr values = word;
  int count = 1, factor = 2;
  void* arguments[] = {&values, &count, &factor};
  CUDA_KERNEL_NODE_PARAMS params{};
  params.func = step;
  params.gridDimX = params.gridDimY = params.gridDimZ = 1;
  params.blockDimX = params.blockDimY = params.blockDimZ = 1;
  params.kernelParams = arguments;
  CHECK(cuGraphAddKernelNode(&first, graph, nullptr, 0, &params));
  CHECK(cuGraphAddKernelNode(&second, graph, &first, 1, &params));
  int least = 0, greatest = 0;
  CHECK(cuCtxGetStreamPriorityRange(&least, &greatest));
  CUkernelNodeAttrValue value{};
  value.priority = greatest;
  CHECK(cuGraphKernelNodeSetAttribute(first, CU_LAUNCH_ATTRIBUTE_PRIORITY, &value));
  CHECK(cuGraphKernelNodeCopyAttributes(second, first));
  value = {};
  CHECK(cuGraphKernelNodeGetAttribute(second, CU_LAUNCH_ATTRIBUTE_PRIORITY, &value));
  program.expect(value.priority == greatest, "a kernel node's attributes are copied");
  CUgraphExec executable = nullptr;
  CHECK(cuGraphInstantiate(&executable, graph, CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY));
  CHECK(cuGraphLaunch(executable, nullptr));
  CHECK(cuCtxSynchronize());
  const std::vector<int> out = download(word, 1);
  program.expect(out[0] == 23, "and its kernel runs");
  program.save(out);
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuModuleUnload(module));
  CHECK(cuMemFree(word));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("conditionalNodes", argc, argv);
  const Device device;
  values(program);
  structure(program);
  attributes(program);
  return program.finish();
}
