// Integer arithmetic and logic over lanes.
// SPDX-License-Identifier: Apache-2.0
#include "lanes.hpp"
#include "tables.hpp"

namespace softgpu::simt::SOFTGPU_ISA {
namespace {

// Signed arithmetic wraps in PTX, so it is done on unsigned numbers.
template <class T>
struct Unsigned;
template <>
struct Unsigned<s16> {
  using type = u16;
};
template <>
struct Unsigned<s32> {
  using type = u32;
};
template <>
struct Unsigned<s64> {
  using type = u64;
};
template <>
struct Unsigned<u16> {
  using type = u16;
};
template <>
struct Unsigned<u32> {
  using type = u32;
};
template <>
struct Unsigned<u64> {
  using type = u64;
};
template <class T>
using U = typename Unsigned<T>::type;

template <class T>
inline T add(T a, T b) {
  return static_cast<T>(static_cast<U<T>>(a) + static_cast<U<T>>(b));
}
template <class T>
inline T sub(T a, T b) {
  return static_cast<T>(static_cast<U<T>>(a) - static_cast<U<T>>(b));
}
// u16 * u16 would be computed as a signed int and could overflow.
template <class T>
inline T mul(T a, T b) {
  return static_cast<T>(u64{static_cast<U<T>>(a)} * static_cast<U<T>>(b));
}
template <>
inline u32 mul<u32>(u32 a, u32 b) {
  return a * b;
}
template <>
inline s32 mul<s32>(s32 a, s32 b) {
  return static_cast<s32>(static_cast<u32>(a) * static_cast<u32>(b));
}
template <>
inline u16 mul<u16>(u16 a, u16 b) {
  return static_cast<u16>(u32{a} * b);
}
template <>
inline s16 mul<s16>(s16 a, s16 b) {
  return static_cast<s16>(s32{a} * b);
}

inline s16 mul_hi(s16 a, s16 b) { return static_cast<s16>((s32{a} * b) >> 16); }
inline u16 mul_hi(u16 a, u16 b) { return static_cast<u16>((u32{a} * b) >> 16); }
inline s32 mul_hi(s32 a, s32 b) { return static_cast<s32>((s64{a} * b) >> 32); }
inline u32 mul_hi(u32 a, u32 b) { return static_cast<u32>((u64{a} * b) >> 32); }
inline s64 mul_hi(s64 a, s64 b) { return static_cast<s64>((static_cast<__int128>(a) * b) >> 64); }
inline u64 mul_hi(u64 a, u64 b) {
  return static_cast<u64>((static_cast<unsigned __int128>(a) * b) >> 64);
}

// Division by zero is unspecified in the ISA but must not trap: hardware gives all ones.
template <class T>
inline T divide(T a, T b) {
  if (b == 0) return static_cast<T>(~U<T>{0});
  if constexpr (static_cast<T>(-1) < 0) {
    if (b == -1) return sub<T>(0, a);
  }
  return static_cast<T>(a / b);
}
template <class T>
inline T remainder(T a, T b) {
  if (b == 0) return a;
  if constexpr (static_cast<T>(-1) < 0) {
    if (b == -1) return 0;
  }
  return static_cast<T>(a % b);
}

template <class T>
inline T sat_add(T a, T b) {
  s64 r = s64{a} + b;
  return static_cast<T>(r > INT32_MAX ? INT32_MAX : r < INT32_MIN ? INT32_MIN : r);
}
inline s32 saturate(s64 r) {
  return static_cast<s32>(r > INT32_MAX ? INT32_MAX : r < INT32_MIN ? INT32_MIN : r);
}

template <class T>
inline T absolute_difference(T a, T b) {
  return a > b ? sub(a, b) : sub(b, a);
}
template <class T>
inline T smaller(T a, T b) {
  return a < b ? a : b;
}
template <class T>
inline T larger(T a, T b) {
  return a > b ? a : b;
}

template <class H, class F>
inline u32 halves(u32 a, u32 b, F f) {
  u16 lo = static_cast<u16>(f(static_cast<H>(a), static_cast<H>(b)));
  u16 hi = static_cast<u16>(f(static_cast<H>(a >> 16), static_cast<H>(b >> 16)));
  return u32{hi} << 16 | lo;
}

inline s32 low24(s32 a) { return static_cast<s32>(static_cast<u32>(a) << 8) >> 8; }
inline u32 low24(u32 a) { return a & 0xffffffu; }

#define PER_TYPE(t)                                                                            \
  ALU2("add." #t, t, t, t, add<t>(a, b)), ALU2("sub." #t, t, t, t, sub<t>(a, b)),              \
      ALU2("mul.lo." #t, t, t, t, mul<t>(a, b)), ALU2("mul.hi." #t, t, t, t, mul_hi(a, b)),    \
      ALU3("mad.lo." #t, t, t, t, t, add<t>(mul<t>(a, b), c)),                                 \
      ALU3("mad.hi." #t, t, t, t, t, add<t>(mul_hi(a, b), c)),                                 \
      ALU2("div." #t, t, t, t, divide<t>(a, b)), ALU2("rem." #t, t, t, t, remainder<t>(a, b)), \
      ALU2("min." #t, t, t, t, smaller(a, b)), ALU2("max." #t, t, t, t, larger(a, b)),         \
      ALU3("sad." #t, t, t, t, t, add<t>(c, absolute_difference(a, b)))
#define PER_SIGNED(t) \
  ALU1("neg." #t, t, t, sub<t>(0, a)), ALU1("abs." #t, t, t, a < 0 ? sub<t>(0, a) : a)
#define PER_BITS(n)                                                                   \
  ALU2("and.b" #n, u##n, u##n, u##n, a& b), ALU2("or.b" #n, u##n, u##n, u##n, a | b), \
      ALU2("xor.b" #n, u##n, u##n, u##n, a ^ b), ALU1("not.b" #n, u##n, u##n, ~a),    \
      ALU1("cnot.b" #n, u##n, u##n, a == 0), ALU1("mov.b" #n, u##n, u##n, a),         \
      ALU3("selp.b" #n, u##n, u##n, u##n, u8, c ? a : b),                             \
      ALU2("shl.b" #n, u##n, u##n, u32, b >= n ? 0 : u##n(a << (b & (n - 1)))),       \
      ALU2("shr.u" #n, u##n, u##n, u32, b >= n ? 0 : u##n(a >> (b & (n - 1)))),       \
      ALU2("shr.s" #n, s##n, s##n, u32, a >> (b >= n ? n - 1 : b))

const AluEntry entries[] = {
    PER_TYPE(s16),
    PER_TYPE(u16),
    PER_TYPE(s32),
    PER_TYPE(u32),
    PER_TYPE(s64),
    PER_TYPE(u64),
    PER_SIGNED(s16),
    PER_SIGNED(s32),
    PER_SIGNED(s64),
    PER_BITS(16),
    PER_BITS(32),
    PER_BITS(64),
    ALU2("and.pred", u8, u8, u8, a& b),
    ALU2("or.pred", u8, u8, u8, a | b),
    ALU2("xor.pred", u8, u8, u8, a ^ b),
    ALU1("not.pred", u8, u8, a ^ 1),
    ALU1("mov.pred", u8, u8, a),
    ALU1("pred.b32", u8, u32, a != 0),
    ALU2("mul.wide.s16", s32, s16, s16, s32{a} * b),
    ALU2("mul.wide.u16", u32, u16, u16, u32{a} * b),
    ALU2("mul.wide.s32", s64, s32, s32, s64{a} * b),
    ALU2("mul.wide.u32", u64, u32, u32, u64{a} * b),
    ALU3("mad.wide.s16", s32, s16, s16, s32, add<s32>(s32{a} * b, c)),
    ALU3("mad.wide.u16", u32, u16, u16, u32, u32{a} * b + c),
    ALU3("mad.wide.s32", s64, s32, s32, s64, add<s64>(s64{a} * b, c)),
    ALU3("mad.wide.u32", u64, u32, u32, u64, u64{a} * b + c),
    ALU2("mul24.lo.s32", s32, s32, s32, s64{low24(a)} * low24(b)),
    ALU2("mul24.lo.u32", u32, u32, u32, u64{low24(a)} * low24(b)),
    ALU2("mul24.hi.s32", s32, s32, s32, (s64{low24(a)} * low24(b)) >> 16),
    ALU2("mul24.hi.u32", u32, u32, u32, (u64{low24(a)} * low24(b)) >> 16),
    ALU3("mad24.lo.s32", s32, s32, s32, s32,
         add<s32>(static_cast<s32>(s64{low24(a)} * low24(b)), c)),
    ALU3("mad24.lo.u32", u32, u32, u32, u32, static_cast<u32>(u64{low24(a)} * low24(b)) + c),
    ALU3("mad24.hi.s32", s32, s32, s32, s32,
         add<s32>(static_cast<s32>((s64{low24(a)} * low24(b)) >> 16), c)),
    ALU3("mad24.hi.u32", u32, u32, u32, u32,
         static_cast<u32>((u64{low24(a)} * low24(b)) >> 16) + c),
    ALU3("mad24.hi.sat.s32", s32, s32, s32, s32, saturate(((s64{low24(a)} * low24(b)) >> 16) + c)),
    ALU2("add.sat.s32", s32, s32, s32, saturate(s64{a} + b)),
    ALU2("sub.sat.s32", s32, s32, s32, saturate(s64{a} - b)),
    ALU3("mad.hi.sat.s32", s32, s32, s32, s32, saturate(s64{mul_hi(a, b)} + c)),
    ALU2("add.u16x2", u32, u32, u32, halves<u16>(a, b, add<u16>)),
    ALU2("add.s16x2", u32, u32, u32, halves<u16>(a, b, add<u16>)),
    ALU2("min.u16x2", u32, u32, u32, halves<u16>(a, b, smaller<u16>)),
    ALU2("max.u16x2", u32, u32, u32, halves<u16>(a, b, larger<u16>)),
    ALU2("min.s16x2", u32, u32, u32, halves<s16>(a, b, smaller<s16>)),
    ALU2("max.s16x2", u32, u32, u32, halves<s16>(a, b, larger<s16>)),
    ALU2("min.relu.s32", s32, s32, s32, larger(smaller(a, b), 0)),
    ALU2("max.relu.s32", s32, s32, s32, larger(larger(a, b), 0)),
    ALU2("min.relu.s16x2", u32, u32, u32,
         halves<s16>(a, b, [](s16 x, s16 y) { return larger<s16>(smaller(x, y), 0); })),
    ALU2("max.relu.s16x2", u32, u32, u32,
         halves<s16>(a, b, [](s16 x, s16 y) { return larger<s16>(larger(x, y), 0); })),
    // Carries. The decoder keeps the flag in a hidden register and orders the two halves.
    ALU2("carry.u32", u32, u32, u32, (u64{a} + b) >> 32),
    ALU3("carryc.u32", u32, u32, u32, u32, (u64{a} + b + c) >> 32),
    ALU3("addc.u32", u32, u32, u32, u32, a + b + c),
    ALU2("borrow.u32", u32, u32, u32, a < b),
    ALU3("borrowc.u32", u32, u32, u32, u32, u64{a} < u64{b} + c),
    ALU3("subc.u32", u32, u32, u32, u32, a - b - c),
    ALU2("carry.u64", u32, u64, u64, a + b < a),
    ALU3("carryc.u64", u32, u64, u64, u32, (static_cast<unsigned __int128>(a) + b + c) >> 64),
    ALU3("addc.u64", u64, u64, u64, u32, a + b + c),
    ALU2("borrow.u64", u32, u64, u64, a < b),
    ALU3("borrowc.u64", u32, u64, u64, u32, a < b || (c && a == b)),
    ALU3("subc.u64", u64, u64, u64, u32, a - b - c),
    // Packing and unpacking by mov.
    ALU2("pack.16", u32, u16, u16, u32{b} << 16 | a),
    ALU2("pack.32", u64, u32, u32, u64{b} << 32 | a),
    ALU1("extract.32.64", u32, u64, a >> imm),
    ALU1("extract.16.64", u16, u64, a >> imm),
    ALU1("extract.16.32", u16, u32, a >> imm),
};

}  // namespace

std::span<const AluEntry> integer_entries() { return entries; }

}  // namespace softgpu::simt::SOFTGPU_ISA
