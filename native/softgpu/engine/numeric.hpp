// Number formats that C++ lacks: f16, bf16, fp8, tf32, and PTX's rules for minima and conversions.
// SPDX-License-Identifier: Apache-2.0
//
// Like lanes.hpp, compiled once per CPU level in a namespace of its own.
#pragma once

#include "lanes.hpp"

namespace softgpu::simt::SOFTGPU_ISA {

enum class Round { nearest, zero, down, up, odd };

/// f16 to f32, exact; works with denormals flushed as well, since it computes with normal numbers.
inline f32 half_to_float(u16 h) {
  u32 o = (h & 0x7fffu) << 13;
  u32 exponent = o & 0x0f800000u;
  o += 112u << 23;
  o += exponent == 0x0f800000u ? 112u << 23 : 0;
  f32 small = std::bit_cast<f32>(o + (1u << 23)) - std::bit_cast<f32>(113u << 23);
  u32 bits = exponent == 0 ? std::bit_cast<u32>(small) : o;
  return std::bit_cast<f32>(bits | (h & 0x8000u) << 16);
}

/// f32 to f16, to nearest even.
inline u16 float_to_half(f32 x) {
  u32 all = std::bit_cast<u32>(x);
  u32 f = all & 0x7fffffffu;
  constexpr u32 magic = (127u - 15 + 23 - 10 + 1) << 23;
  u32 tiny = std::bit_cast<u32>(std::bit_cast<f32>(f) + std::bit_cast<f32>(magic)) - magic;
  u32 normal =
      (f + 0xc8000fffu + ((f >> 13) & 1)) >> 13;  // 0xc8000fff = ((15 - 127) << 23) + 0xfff
  u32 big = f > 0x7f800000u ? 0x7fffu : 0x7c00u;
  u32 r = f >= (143u << 23) ? big : f < (113u << 23) ? tiny : normal;
  // The canonical NaN has no sign.
  return static_cast<u16>(r | (f > 0x7f800000u ? 0 : (all >> 16) & 0x8000u));
}

inline f32 bf16_to_float(u16 b) { return std::bit_cast<f32>(u32{b} << 16); }

inline u16 float_to_bf16(f32 x) {
  u32 b = std::bit_cast<u32>(x);
  u32 r = (b + 0x7fffu + ((b >> 16) & 1)) >> 16;
  return static_cast<u16>((b & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : r);
}

/// Rounds to a format of M fraction bits whose smallest normal exponent is `emin`; `limit` is the
/// first code that is no finite number.
template <int M, int emin, Round mode>
inline u32 encode(f64 x, u32 sign_bit, u32 limit) {
  u64 all = std::bit_cast<u64>(x);
  bool negative = all >> 63;
  u64 b = all & ~(u64{1} << 63);
  int e = static_cast<int>(b >> 52) - 1023;
  u64 fraction = b & ((u64{1} << 52) - 1);
  u64 significand = e == -1023 ? 0 : fraction | u64{1} << 52;
  if (e == -1023 && fraction)
    significand = 1;  // far below any target: only its being nonzero counts
  int shift = 52 - M + (e < emin ? emin - e : 0);
  if (shift > 63) shift = 63;
  u64 kept = significand >> shift;
  u64 rest = significand & ((u64{1} << shift) - 1);
  u64 half = u64{1} << (shift - 1);
  bool up = mode == Round::nearest ? rest > half || (rest == half && (kept & 1))
            : mode == Round::up    ? rest && !negative
            : mode == Round::down  ? rest && negative
            : mode == Round::odd   ? rest && !(kept & 1)
                                   : false;
  kept += up;
  u64 code = e >= emin ? (static_cast<u64>(e - emin) << M) + kept : kept;
  if (code >= limit) {
    bool to_max = mode == Round::zero || (mode == Round::up && negative) ||
                  (mode == Round::down && !negative);
    code = to_max ? limit - 1 : limit;
  }
  return static_cast<u32>(code) | (negative ? sign_bit : 0);
}

template <Round mode>
inline u16 to_half(f64 x) {
  if (x != x) return 0x7fff;
  return static_cast<u16>(encode<10, -14, mode>(x, 0x8000, 0x7c00));
}
template <Round mode>
inline u16 to_bf16(f64 x) {
  if (x != x) return 0x7fff;
  return static_cast<u16>(encode<7, -126, mode>(x, 0x8000, 0x7f80));
}
inline u8 to_e4m3(f64 x) {  // saturates; has no infinity
  if (x != x) return 0x7f;
  u32 code = encode<3, -6, Round::nearest>(x, 0x80, 0x7f);
  return static_cast<u8>((code & 0x7f) == 0x7f ? (code & 0x80) | 0x7e : code);
}
inline u8 to_e5m2(f64 x) {
  if (x != x) return 0x7f;
  u32 code = encode<2, -14, Round::nearest>(x, 0x80, 0x7c);
  return static_cast<u8>((code & 0x7f) == 0x7c ? (code & 0x80) | 0x7b : code);
}
inline f32 from_e4m3(u8 v) {
  if ((v & 0x7f) == 0x7f) return std::bit_cast<f32>(0x7fffffffu);
  int e = (v >> 3) & 15, m = v & 7;
  f32 magnitude =
      e ? std::bit_cast<f32>(static_cast<u32>(e + 120) << 23 | static_cast<u32>(m) << 20)
        : static_cast<f32>(m) * 0x1p-9f;
  return v & 0x80 ? -magnitude : magnitude;
}
inline f32 from_e5m2(u8 v) { return half_to_float(static_cast<u16>(v << 8)); }

/// a * b + c in f64, exact but for the last bit, which says whether something was lost: rounding
/// that to a narrower format gives what one single rounding would.
inline f64 fma_odd(f64 a, f64 b, f64 c) {
  f64 p = a * b;  // exact: the factors have at most 11 bits
  f64 s = p + c;
  f64 t = s - p;
  f64 lost = (p - (s - t)) + (c - t);
  u64 bits = std::bit_cast<u64>(s);
  bool finite = (bits >> 52 & 0x7ff) != 0x7ff;
  if (finite && lost != 0 && !(bits & 1)) {
    // `bits` is even and the true sum lies between two doubles: take the odd one of them.
    bits += (lost > 0) == (s > 0) ? 1 : -1;
  }
  return std::bit_cast<f64>(bits);
}

template <class F>
struct Bits;
template <>
struct Bits<f32> {
  using type = u32;
  static constexpr u32 nan = 0x7fffffffu;
};
template <>
struct Bits<f64> {
  using type = u64;
  static constexpr u64 nan = 0x7fffffffffffffffull;
};

/// The operand that is a number wins; -0 is less than +0.
template <class F>
inline F minimum(F a, F b) {
  using B = typename Bits<F>::type;
  F equal = std::bit_cast<F>(static_cast<B>(std::bit_cast<B>(a) | std::bit_cast<B>(b)));
  F r = a < b ? a : a == b ? equal : b;
  r = a != a ? b : r;
  r = b != b ? a : r;
  return r != r ? std::bit_cast<F>(Bits<F>::nan) : r;
}
template <class F>
inline F maximum(F a, F b) {
  using B = typename Bits<F>::type;
  F equal = std::bit_cast<F>(static_cast<B>(std::bit_cast<B>(a) & std::bit_cast<B>(b)));
  F r = a > b ? a : a == b ? equal : b;
  r = a != a ? b : r;
  r = b != b ? a : r;
  return r != r ? std::bit_cast<F>(Bits<F>::nan) : r;
}
template <class F>
inline F minimum_nan(F a, F b) {
  return a != a || b != b ? std::bit_cast<F>(Bits<F>::nan) : minimum(a, b);
}
template <class F>
inline F maximum_nan(F a, F b) {
  return a != a || b != b ? std::bit_cast<F>(Bits<F>::nan) : maximum(a, b);
}
/// To [0, 1]; NaN becomes +0.
template <class F>
inline F saturate01(F a) {
  return a > 0 ? (a < 1 ? a : F{1}) : F{0};
}

}  // namespace softgpu::simt::SOFTGPU_ISA
