// Launches as NCCL makes them: a buffer of parameters that is shorter than what the kernel takes,
// and attributes that trigger events. SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "driver.hpp"

namespace {

constexpr int kCount = 64;

// store(arguments): arguments.values[i] = arguments.first + i, of 4 KiB of arguments.
constexpr const char* kStore = R"(
.version 7.0
.target sm_70
.address_size 64
.visible .entry store(.param .align 16 .b8 arguments[4096]) {
  .reg .b32 %r<4>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [arguments];
  ld.param.u32 %r1, [arguments+8];
  mov.u32 %r2, %tid.x;
  add.s32 %r3, %r1, %r2;
  mul.wide.u32 %rd2, %r2, 4;
  add.s64 %rd3, %rd1, %rd2;
  st.global.u32 [%rd3], %r3;
  ret;
}
)";

struct Arguments {
  CUdeviceptr values;
  int first;
};

CUlaunchConfig one_block(CUstream stream) {
  CUlaunchConfig config{};
  config.gridDimX = config.gridDimY = config.gridDimZ = 1;
  config.blockDimX = kCount;
  config.blockDimY = config.blockDimZ = 1;
  config.hStream = stream;
  return config;
}

bool counts_from(CUdeviceptr values, int first) {
  const std::vector<int> out = download(values, kCount);
  for (int i = 0; i < kCount; ++i) {
    if (out[static_cast<size_t>(i)] != first + i) return false;
  }
  return true;
}

void short_buffers(Program& program, CUfunction store, CUdeviceptr values) {
  Arguments arguments{values, 5};
  size_t bytes = sizeof arguments;
  void* extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &arguments, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes,
                   CU_LAUNCH_PARAM_END};
  const CUlaunchConfig config = one_block(nullptr);
  CHECK(cuLaunchKernelEx(&config, store, nullptr, extra));
  CHECK(cuStreamSynchronize(nullptr));
  program.expect(counts_from(values, 5), "a buffer may end before the kernel's parameters do");

  arguments.first = 70;
  CUgraph graph = nullptr;
  CUgraphNode node = nullptr;
  CUgraphExec exec = nullptr;
  CUDA_KERNEL_NODE_PARAMS shape{};
  shape.func = store;
  shape.gridDimX = shape.gridDimY = shape.gridDimZ = 1;
  shape.blockDimX = kCount;
  shape.blockDimY = shape.blockDimZ = 1;
  shape.extra = extra;
  CHECK(cuGraphCreate(&graph, 0));
  CHECK(cuGraphAddKernelNode(&node, graph, nullptr, 0, &shape));
  CHECK(cuGraphInstantiate(&exec, graph, 0));
  CHECK(cuGraphLaunch(exec, nullptr));
  CHECK(cuStreamSynchronize(nullptr));
  program.expect(counts_from(values, 70), "in a graph as well");
  CHECK(cuGraphExecDestroy(exec));
  CHECK(cuGraphDestroy(graph));
}

void triggered_events(Program& program, CUfunction store, CUdeviceptr values) {
  CUstream first = nullptr, second = nullptr;
  CUevent event = nullptr;
  CHECK(cuStreamCreate(&first, CU_STREAM_NON_BLOCKING));
  CHECK(cuStreamCreate(&second, CU_STREAM_NON_BLOCKING));
  CHECK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
  CUlaunchAttribute attribute{};
  attribute.id = CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT;
  attribute.value.launchCompletionEvent.event = event;
  CUlaunchConfig config = one_block(first);
  config.attrs = &attribute;
  config.numAttrs = 1;
  Arguments arguments{values, 900};
  size_t bytes = sizeof arguments;
  void* extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &arguments, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes,
                   CU_LAUNCH_PARAM_END};
  CHECK(cuLaunchKernelEx(&config, store, nullptr, extra));
  CHECK(cuStreamWaitEvent(second, event, 0));
  CHECK(cuStreamSynchronize(second));
  program.expect(cuEventQuery(event) == CUDA_SUCCESS, "a launch triggers the event it names");
  CHECK(cuStreamSynchronize(first));
  program.expect(counts_from(values, 900), "and computes");
  CHECK(cuEventDestroy(event));
  CHECK(cuStreamDestroy(first));
  CHECK(cuStreamDestroy(second));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("launchForms", argc, argv);
  const Device device;
  CUmodule module = nullptr;
  CUfunction store = nullptr;
  CHECK(cuModuleLoadData(&module, kStore));
  CHECK(cuModuleGetFunction(&store, module, "store"));
  const CUdeviceptr values = allocate(kCount * sizeof(int));
  short_buffers(program, store, values);
  triggered_events(program, store, values);
  program.save(download(values, kCount));
  CHECK(cuMemFree(values));
  CHECK(cuModuleUnload(module));
  return program.finish();
}
