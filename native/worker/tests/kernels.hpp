// PTX of the tests' kernels.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace outboard::worker {

// add(a, b, c, n): c[i] = a[i] + b[i].  bump(p): *p += 1, by one thread.  wild(): stores to
// address 8.
inline constexpr std::string_view test_kernels = R"(
.version 7.0
.target sm_80
.address_size 64

.visible .global .align 4 .u32 counter = 7;

.visible .entry add(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n)
{
  .reg .pred %p<2>;
  .reg .b32 %r<8>;
  .reg .f32 %f<4>;
  .reg .b64 %d<12>;
  ld.param.u64 %d1, [a];
  ld.param.u64 %d2, [b];
  ld.param.u64 %d3, [c];
  ld.param.u32 %r1, [n];
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mov.u32 %r4, %tid.x;
  mad.lo.s32 %r5, %r2, %r3, %r4;
  setp.ge.s32 %p1, %r5, %r1;
  @%p1 bra done;
  cvta.to.global.u64 %d4, %d1;
  cvta.to.global.u64 %d5, %d2;
  cvta.to.global.u64 %d6, %d3;
  mul.wide.s32 %d7, %r5, 4;
  add.s64 %d8, %d4, %d7;
  add.s64 %d9, %d5, %d7;
  add.s64 %d10, %d6, %d7;
  ld.global.f32 %f1, [%d8];
  ld.global.f32 %f2, [%d9];
  add.f32 %f3, %f1, %f2;
  st.global.f32 [%d10], %f3;
done:
  ret;
}

.visible .entry bump(.param .u64 p)
{
  .reg .b32 %r<3>;
  .reg .b64 %d<3>;
  ld.param.u64 %d1, [p];
  cvta.to.global.u64 %d2, %d1;
  ld.global.u32 %r1, [%d2];
  add.u32 %r2, %r1, 1;
  st.global.u32 [%d2], %r2;
  ret;
}

.visible .entry wild()
{
  .reg .b32 %r<2>;
  .reg .b64 %d<2>;
  mov.u64 %d1, 8;
  mov.u32 %r1, 1;
  st.global.u32 [%d1], %r1;
  ret;
}
)";

}  // namespace outboard::worker
