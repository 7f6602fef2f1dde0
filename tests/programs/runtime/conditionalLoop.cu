// A graph that runs its loop until a kernel says that it is enough, and branches on what it found.
// SPDX-License-Identifier: Apache-2.0
#include "runtime.hpp"

__global__ void collatz(unsigned* value, unsigned* steps, cudaGraphConditionalHandle loop) {
  *value = *value % 2 == 0 ? *value / 2 : 3 * *value + 1;
  ++*steps;
  cudaGraphSetConditional(loop, *value != 1 ? 1 : 0);
}

__global__ void choose(const unsigned* steps, cudaGraphConditionalHandle choice) {
  cudaGraphSetConditional(choice, *steps > 100 ? 1 : 0);
}

namespace {

cudaGraphConditionalHandle condition(cudaGraph_t graph, unsigned value) {
  cudaGraphConditionalHandle handle = 0;
  CHECK(cudaGraphConditionalHandleCreate(&handle, graph, value, cudaGraphCondAssignDefault));
  return handle;
}

cudaGraphNode_t add(cudaGraph_t graph, cudaGraphNode_t after, cudaGraphConditionalHandle handle,
                    cudaGraphConditionalNodeType type, unsigned size,
                    std::vector<cudaGraph_t>* bodies) {
  cudaGraphNodeParams params = {};
  params.type = cudaGraphNodeTypeConditional;
  params.conditional.handle = handle;
  params.conditional.type = type;
  params.conditional.size = size;
  cudaGraphNode_t node = nullptr;
  CHECK(cudaGraphAddNode(&node, graph, after == nullptr ? nullptr : &after, nullptr,
                         after == nullptr ? 0 : 1, &params));
  bodies->assign(params.conditional.phGraph_out, params.conditional.phGraph_out + size);
  return node;
}

cudaGraphNode_t add_kernel(cudaGraph_t graph, cudaGraphNode_t after, void* kernel, void** values) {
  cudaKernelNodeParams params = {};
  params.func = kernel;
  params.gridDim = params.blockDim = dim3(1);
  params.kernelParams = values;
  cudaGraphNode_t node = nullptr;
  CHECK(cudaGraphAddKernelNode(&node, graph, after == nullptr ? nullptr : &after,
                               after == nullptr ? 0 : 1, &params));
  return node;
}

void add_fill(cudaGraph_t graph, unsigned* word, unsigned value) {
  cudaMemsetParams params = {};
  params.dst = word;
  params.value = value;
  params.elementSize = 4;
  params.width = params.height = 1;
  cudaGraphNode_t node = nullptr;
  CHECK(cudaGraphAddMemsetNode(&node, graph, nullptr, 0, &params));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("conditionalLoop", argc, argv);
  const DeviceBuffer<unsigned> words(3);  // the value, the steps, whether they were many
  unsigned *value = words.get(), *steps = value + 1, *many = value + 2;
  cudaGraph_t graph = nullptr;
  CHECK(cudaGraphCreate(&graph, 0));
  cudaGraphConditionalHandle loop = condition(graph, 1), choice = condition(graph, 0);
  std::vector<cudaGraph_t> body, branches;
  const cudaGraphNode_t looped = add(graph, nullptr, loop, cudaGraphCondTypeWhile, 1, &body);
  void* loop_values[] = {&value, &steps, &loop};
  add_kernel(body[0], nullptr, reinterpret_cast<void*>(collatz), loop_values);
  void* choice_values[] = {&steps, &choice};
  const cudaGraphNode_t chosen =
      add_kernel(graph, looped, reinterpret_cast<void*>(choose), choice_values);
  add(graph, chosen, choice, cudaGraphCondTypeSwitch, 2, &branches);
  add_fill(branches[0], many, 10);
  add_fill(branches[1], many, 20);
  cudaGraphExec_t executable = nullptr;
  CHECK(cudaGraphInstantiate(&executable, graph, 0));

  const unsigned starts[] = {27, 6}, expected_steps[] = {111, 8}, expected_many[] = {20, 10};
  for (int i = 0; i < 2; ++i) {
    const unsigned initial[] = {starts[i], 0, 0};
    CHECK(cudaMemcpy(words.get(), initial, sizeof initial, cudaMemcpyHostToDevice));
    CHECK(cudaGraphLaunch(executable, nullptr));
    const std::vector<unsigned> out = words.download();
    program.expect(out[0] == 1 && out[1] == expected_steps[i], "the loop ends when a kernel says");
    program.expect(out[2] == expected_many[i], "the branch is the one that a kernel chose");
    program.save(out);
  }
  CHECK(cudaGraphExecDestroy(executable));
  CHECK(cudaGraphDestroy(graph));
  return program.finish();
}
