// Bit fields, counts, permutations and dot products over lanes.
// SPDX-License-Identifier: Apache-2.0
#include "lanes.hpp"
#include "tables.hpp"

namespace softgpu::simt::SOFTGPU_ISA {
namespace {

template <class T>
inline T reverse(T v) {
  T r = 0;
  for (unsigned i = 0; i < sizeof(T) * 8; ++i) r |= ((v >> i) & 1) << (sizeof(T) * 8 - 1 - i);
  return r;
}
template <>
inline u32 reverse<u32>(u32 v) {
  v = (v >> 1 & 0x55555555u) | (v & 0x55555555u) << 1;
  v = (v >> 2 & 0x33333333u) | (v & 0x33333333u) << 2;
  v = (v >> 4 & 0x0f0f0f0fu) | (v & 0x0f0f0f0fu) << 4;
  return __builtin_bswap32(v);
}

template <class S, class T>
inline T extract_field(T a, u32 position, u32 length) {
  constexpr u32 width = sizeof(T) * 8;
  u32 pos = position & 0xff, len = length & 0xff;
  T shifted = pos >= width ? 0 : static_cast<T>(a >> pos);
  if (len == 0) return 0;
  bool is_signed = static_cast<S>(-1) < 0;
  u32 top = pos + len - 1 > width - 1 ? width - 1 : pos + len - 1;
  T fill = is_signed && (a >> top & 1) ? ~T{0} : 0;
  if (pos >= width) return fill;
  u32 have = width - pos < len ? width - pos : len;
  T mask = have >= width ? ~T{0} : (T{1} << have) - 1;
  return (shifted & mask) | (fill & ~mask);
}

template <class T>
inline T field_mask(u32 position, u32 length) {
  constexpr u32 width = sizeof(T) * 8;
  u32 pos = position & 0xff, len = length & 0xff;
  if (pos >= width) return 0;
  T ones = len >= width ? ~T{0} : (T{1} << len) - 1;
  return static_cast<T>(ones << pos);
}

template <class T>
inline u32 find_leading(T v) {
  return v ? static_cast<u32>(sizeof(T) * 8 - 1) - static_cast<u32>(std::countl_zero(v)) : ~0u;
}
template <class T>
inline u32 find_shift(T v) {
  return v ? static_cast<u32>(std::countl_zero(v)) : ~0u;
}
inline u32 no_sign(s32 v) { return static_cast<u32>(v < 0 ? ~v : v); }
inline u64 no_sign(s64 v) { return static_cast<u64>(v < 0 ? ~v : v); }

inline u32 find_nth(u32 mask, u32 base, s32 offset) {
  base &= 31;
  if (offset == 0) return mask >> base & 1 ? base : ~0u;
  s32 count = offset < 0 ? -offset : offset;
  s32 step = offset < 0 ? -1 : 1;
  // The base bit itself counts as the first.
  for (s32 at = static_cast<s32>(base); at >= 0 && at < 32; at += step) {
    if ((mask >> at & 1) && --count == 0) return static_cast<u32>(at);
  }
  return ~0u;
}

inline u32 permute(u32 a, u32 b, u32 selector) {
  u64 bytes = u64{b} << 32 | a;
  u32 r = 0;
  for (int k = 0; k < 4; ++k) {
    u32 s = selector >> (4 * k);
    u32 v = static_cast<u32>(bytes >> (8 * (s & 7))) & 0xff;
    if (s & 8) v = v & 0x80 ? 0xff : 0;
    r |= v << (8 * k);
  }
  return r;
}
inline u32 byte_of(u64 bytes, u32 index) {
  return static_cast<u32>(bytes >> (8 * (index & 7))) & 0xff;
}
inline u32 four(u64 bytes, u32 i0, u32 i1, u32 i2, u32 i3) {
  return byte_of(bytes, i0) | byte_of(bytes, i1) << 8 | byte_of(bytes, i2) << 16 |
         byte_of(bytes, i3) << 24;
}

inline u32 lop3(u32 a, u32 b, u32 c, u64 lut) {
  u32 r = 0;
  for (u32 k = 0; k < 8; ++k) {
    u32 on = 0 - static_cast<u32>(lut >> k & 1);
    r |= on & (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
  }
  return r;
}

template <class A, class B>
inline u32 dot4(u32 a, u32 b, u32 c) {
  for (int k = 0; k < 4; ++k) {
    c += static_cast<u32>(s32{static_cast<A>(a >> (8 * k))} * s32{static_cast<B>(b >> (8 * k))});
  }
  return c;
}
template <class A, class B>
inline u32 dot2(u32 a, u32 b, u32 c, int half) {
  for (int k = 0; k < 2; ++k) {
    c += static_cast<u32>(s32{static_cast<A>(a >> (16 * k))} *
                          s32{static_cast<B>(b >> (8 * k + 16 * half))});
  }
  return c;
}

inline u32 funnel_left(u32 a, u32 b, u32 n) { return n ? b << n | a >> (32 - n) : b; }
inline u32 funnel_right(u32 a, u32 b, u32 n) { return n ? a >> n | b << (32 - n) : a; }
inline u32 clamp32(u32 n) { return n > 32 ? 32 : n; }
inline u32 mask_clamp(u32 a, u32 b) {
  return field_mask<u32>(a > 255 ? 255 : a, b > 255 ? 255 : b);
}
inline u32 extend_sign(u32 a, u32 n) {
  if (n == 0) return 0;
  return n >= 32 ? a : static_cast<u32>(static_cast<s32>(a << (32 - n)) >> (32 - n));
}
inline u32 extend_zero(u32 a, u32 n) { return n >= 32 ? a : a & ((1u << n) - 1); }

#define DOTS(ta, A, tb, B) ALU3("dp4a." ta "." tb, u32, u32, u32, u32, (dot4<A, B>(a, b, c)))
#define DOTS2(ta, A, tb, B)                                                 \
  ALU3("dp2a.lo." ta "." tb, u32, u32, u32, u32, (dot2<A, B>(a, b, c, 0))), \
      ALU3("dp2a.hi." ta "." tb, u32, u32, u32, u32, (dot2<A, B>(a, b, c, 1)))

const AluEntry entries[] = {
    ALU1("popc.b32", u32, u32, std::popcount(a)),
    ALU1("popc.b64", u32, u64, std::popcount(a)),
    ALU1("clz.b32", u32, u32, std::countl_zero(a)),
    ALU1("clz.b64", u32, u64, std::countl_zero(a)),
    ALU1("brev.b32", u32, u32, reverse(a)),
    ALU1("brev.b64", u64, u64, reverse(a)),
    ALU1("bfind.u32", u32, u32, find_leading(a)),
    ALU1("bfind.u64", u32, u64, find_leading(a)),
    ALU1("bfind.s32", u32, s32, find_leading(no_sign(a))),
    ALU1("bfind.s64", u32, s64, find_leading(no_sign(a))),
    ALU1("bfind.shiftamt.u32", u32, u32, find_shift(a)),
    ALU1("bfind.shiftamt.u64", u32, u64, find_shift(a)),
    ALU1("bfind.shiftamt.s32", u32, s32, find_shift(no_sign(a))),
    ALU1("bfind.shiftamt.s64", u32, s64, find_shift(no_sign(a))),
    ALU3("fns.b32", u32, u32, u32, s32, find_nth(a, b, c)),
    ALU3("bfe.u32", u32, u32, u32, u32, (extract_field<u32, u32>(a, b, c))),
    ALU3("bfe.s32", u32, u32, u32, u32, (extract_field<s32, u32>(a, b, c))),
    ALU3("bfe.u64", u64, u64, u32, u32, (extract_field<u64, u64>(a, b, c))),
    ALU3("bfe.s64", u64, u64, u32, u32, (extract_field<s64, u64>(a, b, c))),
    ALU2("field.b32", u32, u32, u32, field_mask<u32>(a, b)),
    ALU2("field.b64", u64, u32, u32, field_mask<u64>(a, b)),
    // bfi: the field in place; c is the mask.
    ALU3("merge.b32", u32, u32, u32, u32, (a & c) | (b & ~c)),
    ALU3("merge.b64", u64, u64, u64, u64, (a & c) | (b & ~c)),
    ALU2("place.b32", u32, u32, u32, (b & 0xff) >= 32 ? 0 : a << (b & 31)),
    ALU2("place.b64", u64, u64, u32, (b & 0xff) >= 64 ? 0 : a << (b & 63)),
    ALU2("bmsk.clamp.b32", u32, u32, u32, mask_clamp(a, b)),
    ALU2("bmsk.wrap.b32", u32, u32, u32, field_mask<u32>(a & 31, b & 31)),
    ALU2("szext.clamp.s32", u32, u32, u32, extend_sign(a, b)),
    ALU2("szext.clamp.u32", u32, u32, u32, extend_zero(a, b)),
    ALU2("szext.wrap.s32", u32, u32, u32, extend_sign(a, b & 31)),
    ALU2("szext.wrap.u32", u32, u32, u32, extend_zero(a, b & 31)),
    ALU3("shf.l.wrap.b32", u32, u32, u32, u32, funnel_left(a, b, c & 31)),
    ALU3("shf.r.wrap.b32", u32, u32, u32, u32, funnel_right(a, b, c & 31)),
    ALU3("shf.l.clamp.b32", u32, u32, u32, u32, c >= 32 ? a : funnel_left(a, b, clamp32(c))),
    ALU3("shf.r.clamp.b32", u32, u32, u32, u32, c >= 32 ? b : funnel_right(a, b, clamp32(c))),
    ALU3("lop3.b32", u32, u32, u32, u32, lop3(a, b, c, imm)),
    ALU3("prmt.b32", u32, u32, u32, u32, permute(a, b, c)),
    ALU3("prmt.f4e.b32", u32, u32, u32, u32,
         four(u64{b} << 32 | a, c & 3, (c & 3) + 1, (c & 3) + 2, (c & 3) + 3)),
    ALU3("prmt.b4e.b32", u32, u32, u32, u32,
         four(u64{b} << 32 | a, c & 3, (c & 3) + 7, (c & 3) + 6, (c & 3) + 5)),
    ALU3("prmt.rc8.b32", u32, u32, u32, u32, byte_of(a, c & 3) * 0x01010101u),
    ALU3("prmt.ecl.b32", u32, u32, u32, u32,
         four(a, c & 3, (c & 3) > 1 ? c & 3 : 1, (c & 3) > 2 ? c & 3 : 2, 3)),
    ALU3("prmt.ecr.b32", u32, u32, u32, u32,
         four(a, 0, (c & 3) < 1 ? c & 3 : 1, (c & 3) < 2 ? c & 3 : 2, c & 3)),
    ALU3("prmt.rc16.b32", u32, u32, u32, u32,
         c & 1 ? a >> 16 | (a & 0xffff0000u) : (a & 0xffffu) * 0x10001u),
    ALU3("slct.b16.s32", u16, u16, u16, s32, c >= 0 ? a : b),
    ALU3("slct.b32.s32", u32, u32, u32, s32, c >= 0 ? a : b),
    ALU3("slct.b64.s32", u64, u64, u64, s32, c >= 0 ? a : b),
    ALU3("slct.b16.f32", u16, u16, u16, f32, c >= 0 ? a : b),
    ALU3("slct.b32.f32", u32, u32, u32, f32, c >= 0 ? a : b),
    ALU3("slct.b64.f32", u64, u64, u64, f32, c >= 0 ? a : b),
    DOTS("u32", u8, "u32", u8),
    DOTS("u32", u8, "s32", s8),
    DOTS("s32", s8, "u32", u8),
    DOTS("s32", s8, "s32", s8),
    DOTS2("u32", u16, "u32", u8),
    DOTS2("u32", u16, "s32", s8),
    DOTS2("s32", s16, "u32", u8),
    DOTS2("s32", s16, "s32", s8),
};

}  // namespace

std::span<const AluEntry> bits_entries() { return entries; }

}  // namespace softgpu::simt::SOFTGPU_ISA
