// Conversions (cvt) over lanes.
// SPDX-License-Identifier: Apache-2.0
#include "numeric.hpp"
#include "tables.hpp"

namespace softgpu::simt::SOFTGPU_ISA {
namespace {

template <class I>
struct Limits;
template <>
struct Limits<s8> {
  static constexpr f64 low = -128, high = 127;
};
template <>
struct Limits<u8> {
  static constexpr f64 low = 0, high = 255;
};
template <>
struct Limits<s16> {
  static constexpr f64 low = -32768, high = 32767;
};
template <>
struct Limits<u16> {
  static constexpr f64 low = 0, high = 65535;
};

/// Float to integer: saturates, and NaN becomes 0. C++'s own cast is undefined for both.
template <class I, class F>
inline I to_integer(F x) {
  if constexpr (sizeof(I) <= 2) {
    F low = static_cast<F>(Limits<I>::low), high = static_cast<F>(Limits<I>::high);
    x = x != x ? F{0} : x;
    x = x < low ? low : x > high ? high : x;
    return static_cast<I>(static_cast<s32>(x));
  } else if constexpr (static_cast<I>(-1) < 0) {
    constexpr F bound = sizeof(I) == 4 ? F{0x1p31f} : F{0x1p63f};
    constexpr I highest = sizeof(I) == 4 ? static_cast<I>(INT32_MAX) : static_cast<I>(INT64_MAX);
    F safe = x >= -bound && x < bound ? x : F{0};
    I r = static_cast<I>(safe);
    r = x >= bound ? highest : r;
    return x < -bound ? static_cast<I>(-highest - 1) : r;
  } else {
    constexpr F bound = sizeof(I) == 4 ? F{0x1p32f} : F{0x1p64f};
    F safe = x > F{-1} && x < bound ? x : F{0};
    safe = safe < 0 ? F{0} : safe;
    I r;
    if constexpr (sizeof(I) == 4) {
      r = static_cast<I>(static_cast<s64>(safe));
    } else {
      constexpr F half = F{0x1p63f};
      r = safe >= half ? static_cast<u64>(static_cast<s64>(safe - half)) + (u64{1} << 63)
                       : static_cast<u64>(static_cast<s64>(safe));
    }
    return x >= bound ? static_cast<I>(~I{0}) : r;
  }
}

// Destinations of 8 bits are written to a 16-bit slot, extended by their sign.
#define F2I(d, D, W, f, T, L)                                          \
  ALU1("cvt.rni." d "." f, W, T, to_integer<D>(std::nearbyint(L(a)))), \
      ALU1("cvt.rzi." d "." f, W, T, to_integer<D>(std::trunc(L(a)))), \
      ALU1("cvt.rmi." d "." f, W, T, to_integer<D>(std::floor(L(a)))), \
      ALU1("cvt.rpi." d "." f, W, T, to_integer<D>(std::ceil(L(a))))
#define F2ALL(f, T, L)                                                                             \
  F2I("s8", s8, s16, f, T, L), F2I("u8", u8, u16, f, T, L), F2I("s16", s16, s16, f, T, L),         \
      F2I("u16", u16, u16, f, T, L), F2I("s32", s32, s32, f, T, L), F2I("u32", u32, u32, f, T, L), \
      F2I("s64", s64, s64, f, T, L), F2I("u64", u64, u64, f, T, L)

// Integers to f16 and bf16 go through f64, which holds all of 32 bits. More bits than f64 has can
// only matter for bf16, where the odd last bit keeps them.
inline f64 odd_double(u64 m, bool negative) {
  int excess = m >> 53 ? 11 - std::countl_zero(m) : 0;
  u64 kept = m >> excess;
  if (excess > 0 && (m & ((u64{1} << excess) - 1))) kept |= 1;
  f64 v = static_cast<f64>(static_cast<s64>(kept)) * static_cast<f64>(u64{1} << excess);
  return negative ? -v : v;
}
inline f64 exact(s64 a) {
  return odd_double(a < 0 ? 0 - static_cast<u64>(a) : static_cast<u64>(a), a < 0);
}
inline f64 exact(u64 a) { return odd_double(a, false); }
inline f64 exact(s32 a) { return a; }
inline f64 exact(u32 a) { return a; }

#define I2F(s, S, W)                                               \
  ALU1("cvt.f32." s, f32, W, static_cast<f32>(static_cast<S>(a))), \
      ALU1("cvt.f64." s, f64, W, static_cast<f64>(static_cast<S>(a)))
#define I2H(s, S, W, E)                                                                          \
  ALU1("cvt.f16." s, u16, W, to_half<Round::nearest>(exact(static_cast<E>(static_cast<S>(a))))), \
      ALU1("cvt.bf16." s, u16, W,                                                                \
           to_bf16<Round::nearest>(exact(static_cast<E>(static_cast<S>(a))))),                   \
      ALU1("cvt.rz.f16." s, u16, W,                                                              \
           to_half<Round::zero>(exact(static_cast<E>(static_cast<S>(a))))),                      \
      ALU1("cvt.rz.bf16." s, u16, W,                                                             \
           to_bf16<Round::zero>(exact(static_cast<E>(static_cast<S>(a)))))
#define INTEGERS(X)                                                                               \
  X("s8", s8, u16), X("u8", u8, u16), X("s16", s16, u16), X("u16", u16, u16), X("s32", s32, u32), \
      X("u32", u32, u32), X("s64", s64, u64), X("u64", u64, u64)

// Integer to integer: by the source's type and the size of the destination's register.
#define I2I(s, S, W)                                                  \
  ALU1("ext.16." s, u16, W, static_cast<u16>(static_cast<S>(a))),     \
      ALU1("ext.32." s, u32, W, static_cast<u32>(static_cast<S>(a))), \
      ALU1("ext.64." s, u64, W, static_cast<u64>(static_cast<S>(a)))

#define CLAMP(d, low, high)         \
  ALU1("clamp." d ".s", s64, s64,   \
       (a < s64{low}    ? s64{low}  \
        : a > s64{high} ? s64{high} \
                        : a)),      \
      ALU1("clamp." d ".u", u64, u64, (a > static_cast<u64>(high) ? static_cast<u64>(high) : a))

template <class F>
inline u32 two(F f, f32 high, f32 low) {
  return u32{f(high)} << 16 | f(low);
}
inline u16 half_relu(f32 x) { return x != x ? 0x7fff : float_to_half(x > 0 ? x : 0); }
inline u16 bf16_relu(f32 x) { return x != x ? 0x7fff : float_to_bf16(x > 0 ? x : 0); }
inline u16 half_finite(f32 x) {
  return x != x ? 0x7fff : float_to_half(x > 65504 ? 65504 : x < -65504 ? -65504 : x);
}
inline u16 bf16_finite(f32 x) {
  u16 r = float_to_bf16(x);
  return (r & 0x7fff) == 0x7f80 ? r - 1 : r;
}
inline u32 to_tf32(f32 x, bool away) {
  u32 b = std::bit_cast<u32>(x);
  if ((b & 0x7fffffffu) > 0x7f800000u) return 0x7fffffffu;
  if ((b & 0x7f800000u) == 0x7f800000u) return b;
  b += away ? 0x1000u : 0xfffu + ((b >> 13) & 1);
  return b & ~0x1fffu;
}

const AluEntry entries[] = {
    F2ALL("f32", f32, ),
    F2ALL("f64", f64, ),
    F2ALL("f16", u16, half_to_float),
    F2ALL("bf16", u16, bf16_to_float),
    INTEGERS(I2F),
    INTEGERS(I2I),
    I2H("s8", s8, u16, s32),
    I2H("u8", u8, u16, s32),
    I2H("s16", s16, u16, s32),
    I2H("u16", u16, u16, s32),
    I2H("s32", s32, u32, s32),
    I2H("u32", u32, u32, u32),
    I2H("s64", s64, u64, s64),
    I2H("u64", u64, u64, u64),
    CLAMP("s8", INT8_MIN, INT8_MAX),
    CLAMP("u8", 0, UINT8_MAX),
    CLAMP("s16", INT16_MIN, INT16_MAX),
    CLAMP("u16", 0, UINT16_MAX),
    CLAMP("s32", INT32_MIN, INT32_MAX),
    CLAMP("u32", 0, UINT32_MAX),
    CLAMP("s64", INT64_MIN, INT64_MAX),
    CLAMP("u64", 0, INT64_MAX),
    ALU1("cvt.f64.f32", f64, f32, a),
    ALU1("cvt.f32.f64", f32, f64, a),
    ALU1("cvt.f32.f16", f32, u16, half_to_float(a)),
    ALU1("cvt.f64.f16", f64, u16, half_to_float(a)),
    ALU1("cvt.f32.bf16", f32, u16, bf16_to_float(a)),
    ALU1("cvt.f64.bf16", f64, u16, bf16_to_float(a)),
    ALU1("cvt.f16.f32", u16, f32, float_to_half(a)),
    ALU1("cvt.bf16.f32", u16, f32, float_to_bf16(a)),
    ALU1("cvt.rz.f16.f32", u16, f32, to_half<Round::zero>(a)),
    ALU1("cvt.rm.f16.f32", u16, f32, to_half<Round::down>(a)),
    ALU1("cvt.rp.f16.f32", u16, f32, to_half<Round::up>(a)),
    ALU1("cvt.rz.bf16.f32", u16, f32, to_bf16<Round::zero>(a)),
    ALU1("cvt.rm.bf16.f32", u16, f32, to_bf16<Round::down>(a)),
    ALU1("cvt.rp.bf16.f32", u16, f32, to_bf16<Round::up>(a)),
    ALU1("cvt.f16.f64", u16, f64, to_half<Round::nearest>(a)),
    ALU1("cvt.rz.f16.f64", u16, f64, to_half<Round::zero>(a)),
    ALU1("cvt.rm.f16.f64", u16, f64, to_half<Round::down>(a)),
    ALU1("cvt.rp.f16.f64", u16, f64, to_half<Round::up>(a)),
    ALU1("cvt.bf16.f64", u16, f64, to_bf16<Round::nearest>(a)),
    ALU1("cvt.bf16.f16", u16, u16, float_to_bf16(half_to_float(a))),
    ALU1("cvt.f16.bf16", u16, u16, float_to_half(bf16_to_float(a))),
    ALU1("cvt.relu.f16.f32", u16, f32, half_relu(a)),
    ALU1("cvt.relu.bf16.f32", u16, f32, bf16_relu(a)),
    ALU1("cvt.satfinite.f16.f32", u16, f32, half_finite(a)),
    ALU1("cvt.satfinite.bf16.f32", u16, f32, bf16_finite(a)),
    ALU2("cvt.f16x2.f32", u32, f32, f32, two(float_to_half, a, b)),
    ALU2("cvt.bf16x2.f32", u32, f32, f32, two(float_to_bf16, a, b)),
    ALU2("cvt.rz.f16x2.f32", u32, f32, f32, two(to_half<Round::zero>, a, b)),
    ALU2("cvt.rz.bf16x2.f32", u32, f32, f32, two(to_bf16<Round::zero>, a, b)),
    ALU2("cvt.relu.f16x2.f32", u32, f32, f32, two(half_relu, a, b)),
    ALU2("cvt.relu.bf16x2.f32", u32, f32, f32, two(bf16_relu, a, b)),
    ALU2("cvt.satfinite.f16x2.f32", u32, f32, f32, two(half_finite, a, b)),
    ALU2("cvt.satfinite.bf16x2.f32", u32, f32, f32, two(bf16_finite, a, b)),
    ALU1("cvt.tf32.f32", u32, f32, to_tf32(a, false)),
    ALU1("cvt.rna.tf32.f32", u32, f32, to_tf32(a, true)),
    ALU2("cvt.satfinite.e4m3x2.f32", u16, f32, f32, to_e4m3(a) << 8 | to_e4m3(b)),
    ALU2("cvt.satfinite.e5m2x2.f32", u16, f32, f32, to_e5m2(a) << 8 | to_e5m2(b)),
    ALU1("cvt.satfinite.e4m3x2.f16x2", u16, u32,
         to_e4m3(half_to_float(static_cast<u16>(a >> 16))) << 8 |
             to_e4m3(half_to_float(static_cast<u16>(a)))),
    ALU1("cvt.satfinite.e5m2x2.f16x2", u16, u32,
         to_e5m2(half_to_float(static_cast<u16>(a >> 16))) << 8 |
             to_e5m2(half_to_float(static_cast<u16>(a)))),
    ALU1("cvt.f16x2.e4m3x2", u32, u16,
         two(float_to_half, from_e4m3(static_cast<u8>(a >> 8)), from_e4m3(static_cast<u8>(a)))),
    ALU1("cvt.f16x2.e5m2x2", u32, u16,
         two(float_to_half, from_e5m2(static_cast<u8>(a >> 8)), from_e5m2(static_cast<u8>(a)))),
    ALU1("rint.f16", u16, u16, float_to_half(std::nearbyint(half_to_float(a)))),
    ALU1("trunc.f16", u16, u16, float_to_half(std::trunc(half_to_float(a)))),
    ALU1("floor.f16", u16, u16, float_to_half(std::floor(half_to_float(a)))),
    ALU1("ceil.f16", u16, u16, float_to_half(std::ceil(half_to_float(a)))),
};

}  // namespace

std::span<const AluEntry> convert_entries() { return entries; }

}  // namespace softgpu::simt::SOFTGPU_ISA
