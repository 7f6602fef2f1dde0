// f16 and bf16 arithmetic, single and packed, over lanes.
// SPDX-License-Identifier: Apache-2.0
#include "numeric.hpp"
#include "tables.hpp"

namespace softgpu::simt::SOFTGPU_ISA {
namespace {

struct F16 {
  static f32 load(u16 v) { return half_to_float(v); }
  static u16 store(f32 v) { return float_to_half(v); }
  static u16 store_odd(f64 v) { return to_half<Round::nearest>(v); }
  static constexpr u16 infinity = 0x7c00;
};
struct Bf16 {
  static f32 load(u16 v) { return bf16_to_float(v); }
  static u16 store(f32 v) { return float_to_bf16(v); }
  static u16 store_odd(f64 v) { return to_bf16<Round::nearest>(v); }
  static constexpr u16 infinity = 0x7f80;
};

// f32 has more than twice the bits plus two of either, so rounding twice is as good as once.
template <class H>
inline u16 add(u16 a, u16 b) {
  return H::store(H::load(a) + H::load(b));
}
template <class H>
inline u16 sub(u16 a, u16 b) {
  return H::store(H::load(a) - H::load(b));
}
template <class H>
inline u16 mul(u16 a, u16 b) {
  return H::store(H::load(a) * H::load(b));
}
template <class H>
inline u16 fma(u16 a, u16 b, u16 c) {
  return H::store_odd(fma_odd(H::load(a), H::load(b), H::load(c)));
}
template <class H>
inline bool is_nan(u16 a) {
  return (a & 0x7fff) > H::infinity;
}
template <class H>
inline u16 low(u16 a, u16 b) {
  u16 r = H::store(minimum(H::load(a), H::load(b)));
  return r;
}
template <class H>
inline u16 high(u16 a, u16 b) {
  return H::store(maximum(H::load(a), H::load(b)));
}
template <class H>
inline u16 low_nan(u16 a, u16 b) {
  return is_nan<H>(a) || is_nan<H>(b) ? 0x7fff : low<H>(a, b);
}
template <class H>
inline u16 high_nan(u16 a, u16 b) {
  return is_nan<H>(a) || is_nan<H>(b) ? 0x7fff : high<H>(a, b);
}
template <class H>
inline u16 xorsign(u16 a, u16 b, u16 r) {
  return static_cast<u16>((r & 0x7fff) | ((a ^ b) & 0x8000));
}
template <class H>
inline u16 clamp01(u16 a) {
  return H::store(saturate01(H::load(a)));
}
template <class H>
inline u16 relu(u16 a) {
  return is_nan<H>(a) ? 0x7fff : a & 0x8000 ? 0 : a;
}
template <class H>
inline u16 exp2(u16 a) {
  return H::store(std::exp2(H::load(a)));
}
template <class H>
inline u16 tanh(u16 a) {
  return H::store(std::tanh(H::load(a)));
}
inline u16 flush(u16 a) { return (a & 0x7c00) == 0 ? a & 0x8000 : a; }
inline u16 negate(u16 a) { return a ^ 0x8000; }
inline u16 magnitude(u16 a) { return a & 0x7fff; }

template <class F>
inline u32 both1(u32 a, F f) {
  return u32{f(static_cast<u16>(a >> 16))} << 16 | f(static_cast<u16>(a));
}
template <class F>
inline u32 both2(u32 a, u32 b, F f) {
  return u32{f(static_cast<u16>(a >> 16), static_cast<u16>(b >> 16))} << 16 |
         f(static_cast<u16>(a), static_cast<u16>(b));
}
template <class F>
inline u32 both3(u32 a, u32 b, u32 c, F f) {
  return u32{f(static_cast<u16>(a >> 16), static_cast<u16>(b >> 16), static_cast<u16>(c >> 16))}
             << 16 |
         f(static_cast<u16>(a), static_cast<u16>(b), static_cast<u16>(c));
}

#define ONE(name, t, f) \
  ALU1(name "." t, u16, u16, f(a)), ALU1(name "." t "x2", u32, u32, both1(a, f))
#define TWO(name, t, f) \
  ALU2(name "." t, u16, u16, u16, f(a, b)), ALU2(name "." t "x2", u32, u32, u32, both2(a, b, f))
#define THREE(name, t, f)                           \
  ALU3(name "." t, u16, u16, u16, u16, f(a, b, c)), \
      ALU3(name "." t "x2", u32, u32, u32, u32, both3(a, b, c, f))
#define PER_HALF(t, H)                                                                          \
  TWO("add", t, add<H>), TWO("sub", t, sub<H>), TWO("mul", t, mul<H>), THREE("fma", t, fma<H>), \
      TWO("min", t, low<H>), TWO("max", t, high<H>), TWO("min.NaN", t, low_nan<H>),             \
      TWO("max.NaN", t, high_nan<H>), ONE("neg", t, negate), ONE("abs", t, magnitude),          \
      ONE("sat", t, clamp01<H>), ONE("relu", t, relu<H>), ONE("ex2", t, exp2<H>),               \
      ONE("tanh", t, tanh<H>), ONE("flush", t, flush)

const AluEntry entries[] = {
    PER_HALF("f16", F16),
    PER_HALF("bf16", Bf16),
    ALU2("min.xorsign.abs.f16", u16, u16, u16,
         xorsign<F16>(a, b, low<F16>(a & 0x7fff, b & 0x7fff))),
    ALU2("max.xorsign.abs.f16", u16, u16, u16,
         xorsign<F16>(a, b, high<F16>(a & 0x7fff, b & 0x7fff))),
};

}  // namespace

std::span<const AluEntry> half_entries() { return entries; }

}  // namespace softgpu::simt::SOFTGPU_ISA
