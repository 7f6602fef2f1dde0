// Lets programs that were written for CUDA 12 be compiled with CUDA 13, which took some names away.
// SPDX-License-Identifier: Apache-2.0
//
// tests/gpu/examples.py has every source include it first; both forms of a call can be written.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#if CUDART_VERSION >= 13000 && defined(__cplusplus) && !defined(__CUDACC_RTC__)

static inline CUresult cuCtxCreate_v4(CUcontext* context, unsigned flags, CUdevice device) {
  return cuCtxCreate_v4(context, nullptr, flags, device);
}

static inline cudaError_t cudaGraphAddNode(cudaGraphNode_t* node, cudaGraph_t graph,
                                           const cudaGraphNode_t* dependencies, size_t count,
                                           cudaGraphNodeParams* parameters) {
  return cudaGraphAddNode(node, graph, dependencies, nullptr, count, parameters);
}

static inline cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream,
                                                   cudaStreamCaptureStatus* status,
                                                   unsigned long long* id, cudaGraph_t* graph,
                                                   const cudaGraphNode_t** dependencies,
                                                   size_t* count) {
  return cudaStreamGetCaptureInfo(stream, status, id, graph, dependencies, nullptr, count);
}

static inline cudaError_t cudaStreamUpdateCaptureDependencies(cudaStream_t stream,
                                                              cudaGraphNode_t* dependencies,
                                                              size_t count, unsigned flags) {
  return cudaStreamUpdateCaptureDependencies(stream, dependencies, nullptr, count, flags);
}

struct OlderDeviceProperties : cudaDeviceProp {
  int clockRate, memoryClockRate, computeMode, deviceOverlap, kernelExecTimeoutEnabled;
  int singleToDoublePrecisionPerfRatio, cooperativeMultiDeviceLaunch;
};

static inline cudaError_t olderDeviceProperties(OlderDeviceProperties* properties, int device) {
  const struct {
    int* member;
    cudaDeviceAttr attribute;
  } gone[] = {
      {&properties->clockRate, cudaDevAttrClockRate},
      {&properties->memoryClockRate, cudaDevAttrMemoryClockRate},
      {&properties->computeMode, cudaDevAttrComputeMode},
      {&properties->deviceOverlap, cudaDevAttrGpuOverlap},
      {&properties->kernelExecTimeoutEnabled, cudaDevAttrKernelExecTimeout},
      {&properties->singleToDoublePrecisionPerfRatio, cudaDevAttrSingleToDoublePrecisionPerfRatio},
  };
  properties->cooperativeMultiDeviceLaunch = 0;
  cudaError_t result = cudaGetDeviceProperties(properties, device);
  for (const auto& each : gone) {
    if (result == cudaSuccess) result = cudaDeviceGetAttribute(each.member, each.attribute, device);
  }
  return result;
}

#define cudaDeviceProp OlderDeviceProperties
#define cudaGetDeviceProperties olderDeviceProperties

#endif
