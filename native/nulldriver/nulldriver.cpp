// A driver whose device does nothing: devices, contexts, streams, events, launches and graphs.
// SPDX-License-Identifier: Apache-2.0
//
// Every call succeeds at once and no address that a program gives is touched, but for the words of
// cuStreamWriteValue in memory that this driver handed out or was told to register. So what a
// benchmark measures on it is everything but the device.
#include <atomic>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <vector>

#include "api.hpp"
#include "null_memory.hpp"
#include "per_thread.hpp"
#include "unsupported.hpp"

namespace outboard {

int unsupported(const char* name, char* said) {
  if (__atomic_exchange_n(said, 1, __ATOMIC_RELAXED) == 0) {
    std::fprintf(stderr, "nulldriver: %s is not supported\n", name);
  }
  return CUDA_ERROR_NOT_SUPPORTED;
}

}  // namespace outboard

namespace softgpu {
thread_local int per_thread_depth = 0;
}

namespace {

std::atomic<bool> initialised{false};
// What a context's handle points to: older runtimes look into it.
alignas(4096) char contexts[64][4096];
std::atomic<unsigned> next_context{1};  // 0 is the primary one
std::atomic<int> primary_retained{0};

struct Stack {
  CUcontext top[64] = {};
  int depth = 0;
};
thread_local Stack stack;  // trivially destroyed, so usable until the thread is gone

CUcontext primary() { return reinterpret_cast<CUcontext>(contexts[0]); }

CUresult ready() { return initialised.load() ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED; }

/// A handle that nobody else has; never an address.
template <class Handle>
CUresult make(Handle* out) {
  static std::atomic<uint64_t> next{1};
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<Handle>((0x4eull << 56) | (next.fetch_add(1) << 4));
  return CUDA_SUCCESS;
}

template <class T>
CUresult put(T* out, T value) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = value;
  return CUDA_SUCCESS;
}

int attribute(CUdevice_attribute a) {
  switch (a) {
    case CU_DEVICE_ATTRIBUTE_MEM_DECOMPRESS_ALGORITHM_MASK:
      return null_memory::kAlgorithms;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y:
      return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z:
      return 64;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_PITCH:
      return 0x7fffffff;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z:
      return 65535;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK:
      return 48 << 10;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
      return 163 << 10;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
      return 164 << 10;
    case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY:
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR:
      return 65536;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR:
      return 32;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
      return 1'000'000;
    case CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT:
      return 512;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      return 108;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR:
      return 2048;
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT:
      return 2;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      return 8;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
    case CU_DEVICE_ATTRIBUTE_GPU_OVERLAP:
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR:
    case CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH:
    case CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED:
      return 1;
    default:
      return 0;
  }
}

}  // namespace

extern "C" {

CUresult cuInit(unsigned int flags) {
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  initialised.store(true);
  return CUDA_SUCCESS;
}
CUresult cuDriverGetVersion(int* out) { return put(out, 13000); }
CUresult cuGetErrorName(CUresult, const char** out) { return put<const char*>(out, "CUDA_ERROR"); }
CUresult cuGetErrorString(CUresult, const char** out) { return put<const char*>(out, "error"); }
CUresult cuDeviceGetCount(int* out) { return ready() ? ready() : put(out, 1); }
CUresult cuDeviceGet(CUdevice* out, int ordinal) {
  if (ready()) return ready();
  return ordinal == 0 ? put(out, 0) : CUDA_ERROR_INVALID_DEVICE;
}
CUresult cuDeviceGetName(char* out, int length, CUdevice) {
  if (out == nullptr || length <= 0) return CUDA_ERROR_INVALID_VALUE;
  std::snprintf(out, static_cast<size_t>(length), "Null device (does nothing)");
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetUuid_v2(CUuuid* out, CUdevice) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::memcpy(out->bytes, "null-device-0000", 16);
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetUuid(CUuuid* out, CUdevice device) { return cuDeviceGetUuid_v2(out, device); }
CUresult cuDeviceTotalMem_v2(size_t* out, CUdevice) { return put(out, null_memory::kTotal); }
CUresult cuDeviceGetAttribute(int* out, CUdevice_attribute a, CUdevice device) {
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  if (a < 1 || a >= CU_DEVICE_ATTRIBUTE_MAX) return CUDA_ERROR_INVALID_VALUE;
  return put(out, attribute(a));
}
CUresult cuDeviceGetPCIBusId(char* out, int length, CUdevice) {
  if (out == nullptr || length < 13) return CUDA_ERROR_INVALID_VALUE;
  std::snprintf(out, static_cast<size_t>(length), "0000:01:00.0");
  return CUDA_SUCCESS;
}
CUresult cuDeviceCanAccessPeer(int* out, CUdevice, CUdevice) { return put(out, 0); }

CUresult cuDevicePrimaryCtxRetain(CUcontext* out, CUdevice) {
  primary_retained.fetch_add(1);
  return put(out, primary());
}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) {
  primary_retained.fetch_sub(1);
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice d) { return cuDevicePrimaryCtxRelease_v2(d); }
CUresult cuDevicePrimaryCtxReset_v2(CUdevice) {
  primary_retained.store(0);
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxReset(CUdevice d) { return cuDevicePrimaryCtxReset_v2(d); }
CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice, unsigned int) { return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxGetState(CUdevice, unsigned int* flags, int* active) {
  if (CUresult r = put(flags, 0u)) return r;
  return put(active, primary_retained.load() > 0 ? 1 : 0);
}

CUresult cuCtxCreate_v2(CUcontext* out, unsigned int, CUdevice) {
  unsigned slot = 1 + next_context.fetch_add(1) % 63;
  CUcontext context = reinterpret_cast<CUcontext>(contexts[slot]);
  if (stack.depth < 64) stack.top[stack.depth++] = context;
  return put(out, context);
}
CUresult cuCtxCreate_v4(CUcontext* out, CUctxCreateParams*, unsigned int flags, CUdevice d) {
  return cuCtxCreate_v2(out, flags, d);
}
CUresult cuCtxDestroy_v2(CUcontext context) {
  if (stack.depth > 0 && stack.top[stack.depth - 1] == context) --stack.depth;
  return CUDA_SUCCESS;
}
CUresult cuCtxSetCurrent(CUcontext context) {
  if (stack.depth == 0) stack.depth = 1;
  stack.top[stack.depth - 1] = context;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext* out) {
  return put(out, stack.depth > 0 ? stack.top[stack.depth - 1] : nullptr);
}
CUresult cuCtxPushCurrent_v2(CUcontext context) {
  if (stack.depth < 64) stack.top[stack.depth++] = context;
  return CUDA_SUCCESS;
}
CUresult cuCtxPopCurrent_v2(CUcontext* out) {
  if (stack.depth == 0) return CUDA_ERROR_INVALID_CONTEXT;
  --stack.depth;
  return out != nullptr ? put(out, stack.top[stack.depth]) : CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice* out) { return put(out, 0); }
CUresult cuCtxGetDevice_v2(CUdevice* out, CUcontext) { return put(out, 0); }
CUresult cuCtxGetFlags(unsigned int* out) { return put(out, 0u); }
CUresult cuCtxSetFlags(unsigned int) { return CUDA_SUCCESS; }
CUresult cuCtxGetId(CUcontext, unsigned long long* out) { return put(out, 1ull); }
CUresult cuCtxSynchronize() { return CUDA_SUCCESS; }
CUresult cuCtxSynchronize_v2(CUcontext) { return CUDA_SUCCESS; }
CUresult cuCtxSetLimit(CUlimit, size_t) { return CUDA_SUCCESS; }
CUresult cuCtxGetLimit(size_t* out, CUlimit) { return put(out, size_t{1024}); }
CUresult cuCtxGetCacheConfig(CUfunc_cache* out) { return put(out, CU_FUNC_CACHE_PREFER_NONE); }
CUresult cuCtxSetCacheConfig(CUfunc_cache) { return CUDA_SUCCESS; }
CUresult cuCtxGetApiVersion(CUcontext, unsigned int* out) { return put(out, 3020u); }
CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = -5;
  return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream* out, unsigned int) { return make(out); }
CUresult cuStreamCreateWithPriority(CUstream* out, unsigned int, int) { return make(out); }
CUresult cuStreamDestroy_v2(CUstream) { return CUDA_SUCCESS; }
CUresult cuStreamSynchronize(CUstream) { return CUDA_SUCCESS; }
CUresult cuStreamQuery(CUstream) { return CUDA_SUCCESS; }
CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned int) { return CUDA_SUCCESS; }
CUresult cuStreamGetPriority(CUstream, int* out) { return put(out, 0); }
CUresult cuStreamGetFlags(CUstream, unsigned int* out) { return put(out, 0u); }
CUresult cuStreamGetId(CUstream, unsigned long long* out) { return put(out, 1ull); }
CUresult cuStreamGetCtx(CUstream, CUcontext* out) { return cuCtxGetCurrent(out); }
CUresult cuLaunchHostFunc(CUstream, CUhostFn function, void* data) {
  function(data);
  return CUDA_SUCCESS;
}
CUresult cuStreamAddCallback(CUstream stream, CUstreamCallback callback, void* data, unsigned int) {
  callback(stream, CUDA_SUCCESS, data);
  return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent* out, unsigned int) { return make(out); }
CUresult cuEventDestroy_v2(CUevent) { return CUDA_SUCCESS; }
CUresult cuEventRecord(CUevent, CUstream) { return CUDA_SUCCESS; }
CUresult cuEventRecordWithFlags(CUevent, CUstream, unsigned int) { return CUDA_SUCCESS; }
CUresult cuEventQuery(CUevent) { return CUDA_SUCCESS; }
CUresult cuEventSynchronize(CUevent) { return CUDA_SUCCESS; }
CUresult cuEventElapsedTime(float* out, CUevent, CUevent) { return put(out, 0.0f); }
CUresult cuEventElapsedTime_v2(float* out, CUevent, CUevent) { return put(out, 0.0f); }

CUresult cuLaunchKernel(CUfunction, unsigned int, unsigned int, unsigned int, unsigned int,
                        unsigned int, unsigned int, unsigned int, CUstream, void**, void**) {
  return CUDA_SUCCESS;
}
CUresult cuLaunchKernelEx(const CUlaunchConfig*, CUfunction, void**, void**) {
  return CUDA_SUCCESS;
}
CUresult cuLaunchCooperativeKernel(CUfunction, unsigned int, unsigned int, unsigned int,
                                   unsigned int, unsigned int, unsigned int, unsigned int, CUstream,
                                   void**) {
  return CUDA_SUCCESS;
}

CUresult cuStreamWaitValue32_v2(CUstream, CUdeviceptr, cuuint32_t, unsigned int) {
  return CUDA_SUCCESS;
}
CUresult cuStreamWaitValue64_v2(CUstream, CUdeviceptr, cuuint64_t, unsigned int) {
  return CUDA_SUCCESS;
}
CUresult cuStreamWriteValue32_v2(CUstream, CUdeviceptr address, cuuint32_t value, unsigned int) {
  if (null_memory::host(address, 4)) {
    __atomic_store_n(reinterpret_cast<uint32_t*>(address), value, __ATOMIC_RELEASE);
  }
  return CUDA_SUCCESS;
}
CUresult cuStreamWriteValue64_v2(CUstream, CUdeviceptr address, cuuint64_t value, unsigned int) {
  if (null_memory::host(address, 8)) {
    __atomic_store_n(reinterpret_cast<uint64_t*>(address), value, __ATOMIC_RELEASE);
  }
  return CUDA_SUCCESS;
}
CUresult cuStreamWaitValue32(CUstream s, CUdeviceptr a, cuuint32_t v, unsigned int f) {
  return cuStreamWaitValue32_v2(s, a, v, f);
}
CUresult cuStreamWaitValue64(CUstream s, CUdeviceptr a, cuuint64_t v, unsigned int f) {
  return cuStreamWaitValue64_v2(s, a, v, f);
}
CUresult cuStreamWriteValue32(CUstream s, CUdeviceptr a, cuuint32_t v, unsigned int f) {
  return cuStreamWriteValue32_v2(s, a, v, f);
}
CUresult cuStreamWriteValue64(CUstream s, CUdeviceptr a, cuuint64_t v, unsigned int f) {
  return cuStreamWriteValue64_v2(s, a, v, f);
}
CUresult cuStreamBatchMemOp_v2(CUstream s, unsigned int count, CUstreamBatchMemOpParams* p,
                               unsigned int) {
  for (unsigned i = 0; p != nullptr && i < count; ++i) {
    if (p[i].operation == CU_STREAM_MEM_OP_WRITE_VALUE_32) {
      cuStreamWriteValue32_v2(s, p[i].writeValue.address, p[i].writeValue.value, 0);
    } else if (p[i].operation == CU_STREAM_MEM_OP_WRITE_VALUE_64) {
      cuStreamWriteValue64_v2(s, p[i].writeValue.address, p[i].writeValue.value64, 0);
    }
  }
  return CUDA_SUCCESS;
}

// Captures and graphs are empty; which stream captures, nobody remembers.
CUresult cuStreamBeginCapture_v2(CUstream, CUstreamCaptureMode) { return CUDA_SUCCESS; }
CUresult cuStreamEndCapture(CUstream, CUgraph* out) { return make(out); }
CUresult cuStreamGetCaptureInfo_v3(CUstream, CUstreamCaptureStatus* out, cuuint64_t*, CUgraph*,
                                   const CUgraphNode**, const CUgraphEdgeData**, size_t*) {
  return put(out, CU_STREAM_CAPTURE_STATUS_NONE);
}
CUresult cuStreamGetCaptureInfo_v2(CUstream, CUstreamCaptureStatus* out, cuuint64_t*, CUgraph*,
                                   const CUgraphNode**, size_t*) {
  return put(out, CU_STREAM_CAPTURE_STATUS_NONE);
}
CUresult cuStreamIsCapturing(CUstream, CUstreamCaptureStatus* out) {
  return put(out, CU_STREAM_CAPTURE_STATUS_NONE);
}
CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode*) { return CUDA_SUCCESS; }
CUresult cuGraphCreate(CUgraph* out, unsigned int) { return make(out); }
CUresult cuGraphDestroy(CUgraph) { return CUDA_SUCCESS; }
CUresult cuGraphGetNodes(CUgraph, CUgraphNode*, size_t* count) { return put(count, size_t{0}); }
CUresult cuGraphGetEdges(CUgraph, CUgraphNode*, CUgraphNode*, size_t* count) {
  return put(count, size_t{0});
}
CUresult cuGraphGetEdges_v2(CUgraph, CUgraphNode*, CUgraphNode*, CUgraphEdgeData*, size_t* count) {
  return put(count, size_t{0});
}
CUresult cuGraphInstantiateWithFlags(CUgraphExec* out, CUgraph, unsigned long long) {
  return make(out);
}
CUresult cuGraphInstantiateWithParams(CUgraphExec* out, CUgraph, CUDA_GRAPH_INSTANTIATE_PARAMS*) {
  return make(out);
}
CUresult cuGraphUpload(CUgraphExec, CUstream) { return CUDA_SUCCESS; }
CUresult cuGraphLaunch(CUgraphExec, CUstream) { return CUDA_SUCCESS; }
CUresult cuGraphExecDestroy(CUgraphExec) { return CUDA_SUCCESS; }

}  // extern "C"
