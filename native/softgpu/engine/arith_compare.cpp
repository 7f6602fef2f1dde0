// Comparisons (setp) over lanes.
// SPDX-License-Identifier: Apache-2.0
#include "numeric.hpp"
#include "tables.hpp"

namespace softgpu::simt::SOFTGPU_ISA {
namespace {

#define CMP(op, t, T, expr) ALU2("setp." op "." t, u8, T, T, expr)
#define EQUALITY(t, T) CMP("eq", t, T, a == b), CMP("ne", t, T, a != b)
#define ORDER(t, T) \
  CMP("lt", t, T, a < b), CMP("le", t, T, a <= b), CMP("gt", t, T, a > b), CMP("ge", t, T, a >= b)
#define UNSIGNED(t, T)                                                          \
  EQUALITY(t, T), ORDER(t, T), CMP("lo", t, T, a < b), CMP("ls", t, T, a <= b), \
      CMP("hi", t, T, a > b), CMP("hs", t, T, a >= b)
#define SIGNED(t, T) EQUALITY(t, T), ORDER(t, T)
// The u-forms hold when an operand is NaN; "ne" does not.
#define FLOATS(t, T, L)                                                                          \
  CMP("eq", t, T, L(a) == L(b)), CMP("ne", t, T, (L(a) < L(b)) | (L(a) > L(b))),                 \
      CMP("lt", t, T, L(a) < L(b)), CMP("le", t, T, L(a) <= L(b)), CMP("gt", t, T, L(a) > L(b)), \
      CMP("ge", t, T, L(a) >= L(b)), CMP("equ", t, T, !((L(a) < L(b)) | (L(a) > L(b)))),         \
      CMP("neu", t, T, L(a) != L(b)), CMP("ltu", t, T, !(L(a) >= L(b))),                         \
      CMP("leu", t, T, !(L(a) > L(b))), CMP("gtu", t, T, !(L(a) <= L(b))),                       \
      CMP("geu", t, T, !(L(a) < L(b))), CMP("num", t, T, (L(a) == L(a)) & (L(b) == L(b))),       \
      CMP("nan", t, T, (L(a) != L(a)) | (L(b) != L(b)))

const AluEntry entries[] = {
    EQUALITY("b16", u16),
    EQUALITY("b32", u32),
    EQUALITY("b64", u64),
    EQUALITY("pred", u8),
    UNSIGNED("u16", u16),
    UNSIGNED("u32", u32),
    UNSIGNED("u64", u64),
    SIGNED("s16", s16),
    SIGNED("s32", s32),
    SIGNED("s64", s64),
    FLOATS("f32", f32, ),
    FLOATS("f64", f64, ),
    FLOATS("f16", u16, half_to_float),
    FLOATS("bf16", u16, bf16_to_float),
};

}  // namespace

std::span<const AluEntry> compare_entries() { return entries; }

}  // namespace softgpu::simt::SOFTGPU_ISA
