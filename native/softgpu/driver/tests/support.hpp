// What the driver's tests share: a current context, kernels as PTX text, device buffers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>
#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

#define OK(call) REQUIRE((call) == CUDA_SUCCESS)

/// A context of its own, current while it lives.
struct OwnContext {
  CUcontext context = nullptr;
  explicit OwnContext(CUdevice device = 0) {
    OK(cuInit(0));
    OK(cuCtxCreate(&context, nullptr, 0, device));
  }
  ~OwnContext() { cuCtxDestroy(context); }
};

/// vadd(a, b, c, n): c = a + b, floats. store(p, v): *p = v. spin(p): waits until *p is not 0.
inline const char kKernels[] = R"(
.version 7.0
.target sm_70
.address_size 64

.visible .global .align 4 .u32 counter = 41;

.visible .entry vadd(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n)
{
  .reg .pred %p<2>;
  .reg .f32 %f<4>;
  .reg .b32 %r<6>;
  .reg .b64 %rd<11>;
  ld.param.u64 %rd1, [a];
  ld.param.u64 %rd2, [b];
  ld.param.u64 %rd3, [c];
  ld.param.u32 %r1, [n];
  mov.u32 %r2, %ntid.x;
  mov.u32 %r3, %ctaid.x;
  mov.u32 %r4, %tid.x;
  mad.lo.s32 %r5, %r3, %r2, %r4;
  setp.ge.u32 %p1, %r5, %r1;
  @%p1 bra $done;
  mul.wide.u32 %rd4, %r5, 4;
  add.s64 %rd5, %rd1, %rd4;
  add.s64 %rd6, %rd2, %rd4;
  add.s64 %rd7, %rd3, %rd4;
  ld.global.f32 %f1, [%rd5];
  ld.global.f32 %f2, [%rd6];
  add.f32 %f3, %f1, %f2;
  st.global.f32 [%rd7], %f3;
$done:
  ret;
}

.visible .entry store(.param .u64 p, .param .u32 v)
{
  .reg .b32 %r<2>;
  .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [p];
  ld.param.u32 %r1, [v];
  st.global.u32 [%rd1], %r1;
  ret;
}

.visible .entry increment(.param .u64 p)
{
  .reg .b32 %r<3>;
  .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [p];
  ld.global.u32 %r1, [%rd1];
  add.u32 %r2, %r1, 1;
  st.global.u32 [%rd1], %r2;
  ret;
}

.visible .entry spin(.param .u64 p)
{
  .reg .pred %p<2>;
  .reg .b32 %r<2>;
  .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [p];
$again:
  ld.volatile.global.u32 %r1, [%rd1];
  setp.eq.u32 %p1, %r1, 0;
  @%p1 bra $again;
  ret;
}
)";

inline CUfunction kernel(CUmodule module, const char* name) {
  CUfunction f = nullptr;
  OK(cuModuleGetFunction(&f, module, name));
  return f;
}

inline CUmodule load(const void* image) {
  CUmodule module = nullptr;
  OK(cuModuleLoadData(&module, image));
  return module;
}

/// One block of one thread.
template <class... Arguments>
CUresult run_one(CUfunction f, CUstream stream, Arguments... arguments) {
  void* parameters[] = {&arguments...};
  return cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, stream, parameters, nullptr);
}

template <class T>
T read(CUdeviceptr address) {
  T value{};
  OK(cuMemcpyDtoH(&value, address, sizeof value));
  return value;
}
