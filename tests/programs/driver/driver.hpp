// What the driver-API programs share: checked calls, a context, and the PTX of a few kernels.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include "../program.hpp"

#define CHECK(call) check((call), #call, __LINE__)

inline void check(CUresult result, const char* call, int line) {
  if (result == CUDA_SUCCESS) return;
  const char* name = nullptr;
  cuGetErrorName(result, &name);
  std::fprintf(stderr, "line %d: %s: %s (%d)\n", line, call, name == nullptr ? "?" : name,
               static_cast<int>(result));
  std::exit(1);
}

// add(a, b, c, n): c[i] = a[i] + b[i]; step(v, n, factor): v[i] = v[i] * factor + 1, for 32-bit
// ints.
inline constexpr const char* kKernels = R"(
.version 7.0
.target sm_70
.address_size 64

.visible .entry add(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n) {
  .reg .pred %p<2>;
  .reg .b32 %r<9>;
  .reg .b64 %rd<8>;
  ld.param.u64 %rd1, [a];
  ld.param.u64 %rd2, [b];
  ld.param.u64 %rd3, [c];
  ld.param.u32 %r1, [n];
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mov.u32 %r4, %tid.x;
  mad.lo.s32 %r5, %r2, %r3, %r4;
  setp.ge.s32 %p1, %r5, %r1;
  @%p1 bra done;
  mul.wide.s32 %rd4, %r5, 4;
  add.s64 %rd5, %rd1, %rd4;
  add.s64 %rd6, %rd2, %rd4;
  add.s64 %rd7, %rd3, %rd4;
  ld.global.u32 %r6, [%rd5];
  ld.global.u32 %r7, [%rd6];
  add.s32 %r8, %r6, %r7;
  st.global.u32 [%rd7], %r8;
done:
  ret;
}

.visible .entry step(.param .u64 v, .param .u32 n, .param .u32 factor) {
  .reg .pred %p<2>;
  .reg .b32 %r<9>;
  .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [v];
  ld.param.u32 %r1, [n];
  ld.param.u32 %r2, [factor];
  mov.u32 %r3, %ctaid.x;
  mov.u32 %r4, %ntid.x;
  mov.u32 %r5, %tid.x;
  mad.lo.s32 %r6, %r3, %r4, %r5;
  setp.ge.s32 %p1, %r6, %r1;
  @%p1 bra done;
  mul.wide.s32 %rd2, %r6, 4;
  add.s64 %rd3, %rd1, %rd2;
  ld.global.u32 %r7, [%rd3];
  mad.lo.s32 %r8, %r7, %r2, 1;
  st.global.u32 [%rd3], %r8;
done:
  ret;
}
)";

// The first device's primary context, current in the calling thread, with the kernels loaded.
class Device {
 public:
  Device() {
    CHECK(cuInit(0));
    CHECK(cuDeviceGet(&device_, 0));
    CHECK(cuDevicePrimaryCtxRetain(&context_, device_));
    CHECK(cuCtxSetCurrent(context_));
    CHECK(cuModuleLoadData(&module_, kKernels));
    CHECK(cuModuleGetFunction(&add_, module_, "add"));
    CHECK(cuModuleGetFunction(&step_, module_, "step"));
  }
  ~Device() {
    CHECK(cuModuleUnload(module_));
    CHECK(cuDevicePrimaryCtxRelease(device_));
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  CUdevice device() const { return device_; }
  CUcontext context() const { return context_; }

  void launch_add(CUdeviceptr a, CUdeviceptr b, CUdeviceptr c, int count, CUstream stream) const {
    void* arguments[] = {&a, &b, &c, &count};
    CHECK(cuLaunchKernel(add_, blocks(count), 1, 1, kThreads, 1, 1, 0, stream, arguments, nullptr));
  }

  void launch_step(CUdeviceptr values, int count, int factor, CUstream stream) const {
    void* arguments[] = {&values, &count, &factor};
    CHECK(
        cuLaunchKernel(step_, blocks(count), 1, 1, kThreads, 1, 1, 0, stream, arguments, nullptr));
  }

 private:
  static constexpr unsigned kThreads = 128;
  static unsigned blocks(int count) {
    return (static_cast<unsigned>(count) + kThreads - 1) / kThreads;
  }

  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
  CUmodule module_ = nullptr;
  CUfunction add_ = nullptr;
  CUfunction step_ = nullptr;
};

inline CUdeviceptr allocate(size_t size_bytes) {
  CUdeviceptr address = 0;
  CHECK(cuMemAlloc(&address, size_bytes));
  return address;
}

// Bytes to device memory, for any stream to use: from pageable memory a copy returns when it is
// staged, and a stream that the default one does not order could still find what was there before.
inline void upload_to(CUdeviceptr address, const void* data, size_t size_bytes) {
  CHECK(cuMemcpyHtoD(address, data, size_bytes));
  CHECK(cuStreamSynchronize(CU_STREAM_LEGACY));
}

inline CUdeviceptr upload(const void* data, size_t size_bytes) {
  const CUdeviceptr address = allocate(size_bytes);
  upload_to(address, data, size_bytes);
  return address;
}

inline CUdeviceptr upload(const std::vector<int>& values) {
  return upload(values.data(), values.size() * sizeof(int));
}

inline std::vector<int> download(CUdeviceptr address, size_t count) {
  std::vector<int> values(count);
  CHECK(cuMemcpyDtoH(values.data(), address, count * sizeof(int)));
  return values;
}

// What `steps` launches of step make of `value`.
inline int stepped(int value, int factor, int steps) {
  for (int i = 0; i < steps; ++i) {
    value = static_cast<int>(static_cast<unsigned>(value) * static_cast<unsigned>(factor) + 1U);
  }
  return value;
}
