// Loops over lanes, from which all arithmetic handlers are made. Compiled once per CPU level.
// SPDX-License-Identifier: Apache-2.0
//
// Everything lies in a namespace named by SOFTGPU_ISA, so that the linker cannot mix the levels.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "handlers.hpp"

#ifndef SOFTGPU_ISA
#define SOFTGPU_ISA plain
#endif

namespace softgpu::simt::SOFTGPU_ISA {

// `ivdep` is true although d may be a source: then it is the very same slot, lane by lane.
#define SOFTGPU_LANES(body)                             \
  for (int base = r.lo; base < r.hi; base += 32) {      \
    _Pragma("GCC ivdep") for (int k = 0; k < 32; ++k) { \
      const int i = base + k;                           \
      body;                                             \
    }                                                   \
  }

template <class D, class A, class F>
void lanes1(void* dp, const void* ap, const void*, const void*, uint64_t imm, LaneRange r) {
  D* d = static_cast<D*>(dp);
  const A* a = static_cast<const A*>(ap);
  SOFTGPU_LANES(d[i] = F{}(a[i], imm))
}
template <class D, class A, class B, class F>
void lanes2(void* dp, const void* ap, const void* bp, const void*, uint64_t imm, LaneRange r) {
  D* d = static_cast<D*>(dp);
  const A* a = static_cast<const A*>(ap);
  const B* b = static_cast<const B*>(bp);
  SOFTGPU_LANES(d[i] = F{}(a[i], b[i], imm))
}
template <class D, class A, class B, class C, class F>
void lanes3(void* dp, const void* ap, const void* bp, const void* cp, uint64_t imm, LaneRange r) {
  D* d = static_cast<D*>(dp);
  const A* a = static_cast<const A*>(ap);
  const B* b = static_cast<const B*>(bp);
  const C* c = static_cast<const C*>(cp);
  SOFTGPU_LANES(d[i] = F{}(a[i], b[i], c[i], imm))
}

// Entries of a table. The expression sees a, b, c (by value) and imm.
#define ALU1(key, D, A, expr)                                                                  \
  AluEntry {                                                                                   \
    key, &lanes1<D, A, decltype([](A a, uint64_t imm) -> D { return static_cast<D>(expr); })>, \
        sizeof(D), {                                                                           \
      sizeof(A)                                                                                \
    }                                                                                          \
  }
#define ALU2(key, D, A, B, expr)                                                             \
  AluEntry {                                                                                 \
    key,                                                                                     \
        &lanes2<D, A, B,                                                                     \
                decltype([](A a, B b, uint64_t imm) -> D { return static_cast<D>(expr); })>, \
        sizeof(D), {                                                                         \
      sizeof(A), sizeof(B)                                                                   \
    }                                                                                        \
  }
#define ALU3(key, D, A, B, C, expr)                                                               \
  AluEntry {                                                                                      \
    key,                                                                                          \
        &lanes3<D, A, B, C,                                                                       \
                decltype([](A a, B b, C c, uint64_t imm) -> D { return static_cast<D>(expr); })>, \
        sizeof(D), {                                                                              \
      sizeof(A), sizeof(B), sizeof(C)                                                             \
    }                                                                                             \
  }

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using s8 = int8_t;
using s16 = int16_t;
using s32 = int32_t;
using s64 = int64_t;
using f32 = float;
using f64 = double;

}  // namespace softgpu::simt::SOFTGPU_ISA
