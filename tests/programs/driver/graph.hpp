// What the programs about graphs share: instantiating, launching, kernel nodes' parameters.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "driver.hpp"

constexpr int kValues = 256;

inline CUfunction step_of(CUmodule module) {
  CUfunction function = nullptr;
  CHECK(cuModuleGetFunction(&function, module, "step"));
  return function;
}

// values[i] = values[i] * factor + 1.
struct StepArguments {
  CUdeviceptr values;
  int count = kValues;
  int factor;
  void* pointers[3] = {&values, &count, &factor};

  StepArguments(CUdeviceptr at, int by) : values(at), factor(by) {}
  StepArguments(const StepArguments&) = delete;
  StepArguments& operator=(const StepArguments&) = delete;
};

inline CUDA_KERNEL_NODE_PARAMS step_params(CUfunction step, StepArguments& arguments) {
  CUDA_KERNEL_NODE_PARAMS params{};
  params.func = step;
  params.gridDimX = kValues / 128;
  params.gridDimY = params.gridDimZ = 1;
  params.blockDimX = 128;
  params.blockDimY = params.blockDimZ = 1;
  params.kernelParams = arguments.pointers;
  return params;
}

inline CUDA_MEMCPY3D copy_params(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  CUDA_MEMCPY3D params{};
  params.srcMemoryType = params.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  params.srcDevice = from;
  params.dstDevice = to;
  params.WidthInBytes = bytes;
  params.Height = params.Depth = 1;
  return params;
}

inline CUDA_MEMCPY3D upload_params(CUdeviceptr to, const void* from, size_t bytes) {
  CUDA_MEMCPY3D params = copy_params(to, 0, bytes);
  params.srcMemoryType = CU_MEMORYTYPE_HOST;
  params.srcHost = from;
  return params;
}

inline CUDA_MEMCPY3D download_params(void* to, CUdeviceptr from, size_t bytes) {
  CUDA_MEMCPY3D params = copy_params(0, from, bytes);
  params.dstMemoryType = CU_MEMORYTYPE_HOST;
  params.dstHost = to;
  return params;
}

inline CUDA_MEMSET_NODE_PARAMS fill_params(CUdeviceptr at, unsigned value, size_t count) {
  CUDA_MEMSET_NODE_PARAMS params{};
  params.dst = at;
  params.value = value;
  params.elementSize = 4;
  params.width = count;
  params.height = 1;
  return params;
}

class Stream {
 public:
  explicit Stream(unsigned flags = CU_STREAM_NON_BLOCKING) {
    CHECK(cuStreamCreate(&stream_, flags));
  }
  ~Stream() { CHECK(cuStreamDestroy(stream_)); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator CUstream() const { return stream_; }
  void wait() const { CHECK(cuStreamSynchronize(stream_)); }

 private:
  CUstream stream_ = nullptr;
};

inline CUgraphExec instantiate(CUgraph graph) {
  CUgraphExec executable = nullptr;
  CHECK(cuGraphInstantiateWithFlags(&executable, graph, 0));
  return executable;
}

inline void run(CUgraphExec executable, const Stream& stream, int times = 1) {
  for (int i = 0; i < times; ++i) CHECK(cuGraphLaunch(executable, stream));
  stream.wait();
}

inline CUgraphNodeType type_of(CUgraphNode node) {
  CUgraphNodeType type = CU_GRAPH_NODE_TYPE_EMPTY;
  CHECK(cuGraphNodeGetType(node, &type));
  return type;
}

inline std::vector<CUgraphNode> nodes_of(CUgraph graph) {
  size_t count = 0;
  CHECK(cuGraphGetNodes(graph, nullptr, &count));
  std::vector<CUgraphNode> nodes(count);
  CHECK(cuGraphGetNodes(graph, nodes.data(), &count));
  return nodes;
}
