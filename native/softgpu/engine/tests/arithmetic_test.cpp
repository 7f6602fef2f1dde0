// One PTX snippet per family of instructions, checked against C++ on ordinary and special values.
// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <bit>
#include <cfenv>
#include <cmath>
#include <limits>
#include <random>
#include <type_traits>

#include "harness.hpp"

using namespace softgpu;
using namespace softgpu::test;

namespace {

constexpr unsigned kLanes = 256;

using s8 = int8_t;
using s16 = int16_t;
using u16 = uint16_t;
using s32 = int32_t;
using u32 = uint32_t;
using s64 = int64_t;
using u64 = uint64_t;

template <class T>
T pick(std::mt19937_64& g) {
  if constexpr (std::is_same_v<T, bool>) {
    return g() & 1;
  } else if constexpr (std::is_floating_point_v<T>) {
    using L = std::numeric_limits<T>;
    const T special[] = {0,
                         -T{0},
                         1,
                         -1,
                         T{0.5},
                         T{2.5},
                         T{-3.5},
                         L::infinity(),
                         -L::infinity(),
                         L::quiet_NaN(),
                         L::denorm_min(),
                         -L::min() / 4,
                         L::max(),
                         L::min(),
                         T{1e9},
                         T{-1e19},
                         T{4e9}};
    if (g() % 3 == 0) return special[g() % std::size(special)];
    if (g() % 4 == 0) {  // any bits
      if constexpr (sizeof(T) == 4)
        return std::bit_cast<float>(static_cast<u32>(g()));
      else
        return std::bit_cast<double>(g());
    }
    return static_cast<T>(std::uniform_real_distribution<double>(-100, 100)(g));
  } else {
    const u64 special[] = {
        0,    1,      2,          ~u64{0},      0x80, 0x8000, 0x80000000u, u64{1} << 63,
        0x7f, 0x7fff, 0x7fffffff, ~u64{0} >> 1, 31,   32,     33,          63,
        64,   0xffff, 0xffffffffu};
    if (g() % 2) return static_cast<T>(special[g() % std::size(special)]);
    return static_cast<T>(g() >> (g() % 64));
  }
}

template <class T>
std::string reg_type() {
  if constexpr (std::is_same_v<T, bool>)
    return "pred";
  else
    return "b" + std::to_string(sizeof(T) * 8);
}

template <class T>
bool same(T x, T y) {
  if constexpr (std::is_floating_point_v<T>) {
    if (x != x && y != y) return true;
    return std::memcmp(&x, &y, sizeof x) == 0;
  } else {
    return x == y;
  }
}

/// Loads or stores one operand; predicates go through 32 bits.
template <class T>
std::string load(const std::string& name, int index) {
  std::string at = "[%row+" + std::to_string(8 * index) + "];\n";
  if constexpr (std::is_same_v<T, bool>) {
    return "ld.global.u32 %t, " + at + "setp.ne.u32 " + name + ", %t, 0;\n";
  } else {
    return "ld.global.b" + std::to_string(sizeof(T) * 8) + " " + name + ", " + at;
  }
}
template <class T>
std::string store(const std::string& name, int index) {
  std::string at = "[%row+" + std::to_string(8 * index) + "]";
  if constexpr (std::is_same_v<T, bool>) {
    return "selp.u32 %t, 1, 0, " + name + ";\nst.global.u32 " + at + ", %t;\n";
  } else {
    return "st.global.b" + std::to_string(sizeof(T) * 8) + " " + at + ", " + name + ";\n";
  }
}

/// Runs `body` (operands named d, a, b, c) on 256 lanes, once on all and once on half of them, and
/// compares with `f`.
template <class D, class A, class B, class C, class F>
void check(const std::string& body, F f, u64 seed = 1) {
  std::string text =
      ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 rows, .param "
      ".u32 odd) {\n"
      ".reg .b64 %row, %base; .reg .b32 %t, %who, %odd, %low; .reg .pred %skip;\n"
      ".reg ." +
      reg_type<D>() + " d; .reg ." + reg_type<A>() + " a; .reg ." + reg_type<B>() + " b; .reg ." +
      reg_type<C>() +
      " c;\nld.param.u64 %base, [rows]; ld.param.u32 %odd, [odd]; mov.u32 %who, %tid.x;\n"
      "mad.wide.u32 %row, %who, 32, %base;\nand.b32 %low, %who, %odd;\nsetp.ne.u32 %skip, %low, "
      "0;\n" +
      load<D>("d", 3) + load<A>("a", 0) + load<B>("b", 1) + load<C>("c", 2) + "@%skip bra DONE;\n" +
      body + "\nDONE:\n" + store<D>("d", 3) + "ret;\n}\n";
  TestDevice d;
  REQUIRE_MESSAGE(d.load({text}), d.log);
  REQUIRE_MESSAGE(d.kernel("k"), d.log);
  std::mt19937_64 g(seed);
  char* rows = d.alloc<char>(kLanes * 32);
  for (u32 odd : {0u, 1u}) {
    for (int round = 0; round < 6; ++round) {
      std::vector<A> as;
      std::vector<B> bs;
      std::vector<C> cs;
      for (unsigned lane = 0; lane < kLanes; ++lane) {
        A a = pick<A>(g);
        B b = g() % 8 == 0 && std::is_same_v<A, B> ? static_cast<B>(a) : pick<B>(g);
        C c = pick<C>(g);
        as.push_back(a), bs.push_back(b), cs.push_back(c);
        char* row = rows + lane * 32;
        std::memset(row, 0, 32);
        std::memcpy(row, &a, sizeof a), std::memcpy(row + 8, &b, sizeof b),
            std::memcpy(row + 16, &c, sizeof c);
      }
      CHECK_RUN(d.run("k", {1}, {kLanes}, rows, odd));
      for (unsigned lane = 0; lane < kLanes; ++lane) {
        D got;
        std::memcpy(&got, rows + lane * 32 + 24, sizeof got);
        A a = as[lane];
        B b = bs[lane];
        C c = cs[lane];
        D want = lane & odd ? D{} : static_cast<D>(f(a, b, c));
        CHECK_MESSAGE(same(got, want), body << " lane " << lane << " a=" << +a << " b=" << +b
                                            << " c=" << +c << " got " << +got << " want " << +want);
        if (!same(got, want)) return;
      }
    }
  }
}

template <class T, class F>
void check2(const std::string& body, F f) {
  check<T, T, T, T>(body, [&](T a, T b, T) { return f(a, b); });
}

struct Rounding {
  explicit Rounding(int mode) { std::fesetround(mode); }
  ~Rounding() { std::fesetround(FE_TONEAREST); }
};

template <class F>
float flushed(F x) {
  return std::fabs(x) < std::numeric_limits<F>::min() ? std::copysign(F{0}, x) : x;
}

}  // namespace

TEST_CASE("integer arithmetic wraps, divides safely and saturates where asked") {
  check2<u32>("add.s32 d, a, b;", [](u32 a, u32 b) { return a + b; });
  check2<u16>("sub.u16 d, a, b;", [](u16 a, u16 b) { return u16(a - b); });
  check2<u64>("mul.lo.s64 d, a, b;", [](u64 a, u64 b) { return a * b; });
  check2<s64>("mul.hi.s64 d, a, b;", [](s64 a, s64 b) { return s64((__int128(a) * b) >> 64); });
  check2<u16>("mul.hi.u16 d, a, b;", [](u16 a, u16 b) { return u16(u32(a) * b >> 16); });
  check<s64, s32, s32, s64>("mul.wide.s32 d, a, b;", [](s32 a, s32 b, s64) { return s64(a) * b; });
  check<u64, u32, u32, u64>("mad.wide.u32 d, a, b, c;",
                            [](u32 a, u32 b, u64 c) { return u64(a) * b + c; });
  check<u32, u32, u32, u32>("mad.hi.u32 d, a, b, c;",
                            [](u32 a, u32 b, u32 c) { return u32(u64(a) * b >> 32) + c; });
  check2<s32>("div.s32 d, a, b;", [](s32 a, s32 b) {
    return b == 0 ? -1 : b == -1 ? s32(0u - u32(a)) : a / b;
  });
  check2<s64>("rem.s64 d, a, b;", [](s64 a, s64 b) { return b == 0 ? a : b == -1 ? 0 : a % b; });
  check2<s32>("add.sat.s32 d, a, b;", [](s32 a, s32 b) {
    s64 r = s64(a) + b;
    return s32(r > INT32_MAX ? INT32_MAX : r < INT32_MIN ? INT32_MIN : r);
  });
  check<u32, s32, s32, u32>("sad.s32 d, a, b, c;", [](s32 a, s32 b, u32 c) {
    return c + (a > b ? u32(a) - u32(b) : u32(b) - u32(a));
  });
  check2<u32>("mul24.hi.u32 d, a, b;",
              [](u32 a, u32 b) { return u32((u64(a & 0xffffff) * (b & 0xffffff)) >> 16); });
  check2<s16>("min.s16 d, a, b;", [](s16 a, s16 b) { return std::min(a, b); });
  check2<u64>("max.u64 d, a, b;", [](u64 a, u64 b) { return std::max(a, b); });
  check2<s32>("abs.s32 d, a;", [](s32 a, s32) { return a < 0 ? s32(0u - u32(a)) : a; });
}

TEST_CASE("shifts clamp, fields and permutations follow the ISA") {
  check2<u32>("shl.b32 d, a, b;", [](u32 a, u32 b) { return b > 31 ? 0 : a << b; });
  check<s64, s64, u32, u32>("shr.s64 d, a, b;",
                            [](s64 a, u32 b, u32) { return a >> std::min(b, 63u); });
  check<u16, u16, u32, u32>("shr.u16 d, a, b;",
                            [](u16 a, u32 b, u32) { return u16(b > 15 ? 0 : a >> b); });
  check<u32, u32, u32, u32>("shf.l.wrap.b32 d, a, b, c;", [](u32 a, u32 b, u32 c) {
    return u32(((u64(b) << 32 | a) << (c & 31)) >> 32);
  });
  check<u32, u32, u32, u32>("shf.r.clamp.b32 d, a, b, c;", [](u32 a, u32 b, u32 c) {
    return u32((u64(b) << 32 | a) >> std::min(c, 32u));
  });
  check2<u32>("popc.b32 d, a;", [](u32 a, u32) { return u32(std::popcount(a)); });
  check<u32, u64, u32, u32>("clz.b64 d, a;",
                            [](u64 a, u32, u32) { return u32(std::countl_zero(a)); });
  check<u32, s32, u32, u32>("bfind.s32 d, a;", [](s32 a, u32, u32) {
    u32 v = a < 0 ? u32(~a) : u32(a);
    return v ? 31u - u32(std::countl_zero(v)) : ~0u;
  });
  check<u32, u32, u32, u32>("bfe.u32 d, a, b, c;", [](u32 a, u32 b, u32 c) {
    b &= 255, c &= 255;
    return b > 31 ? 0u : (a >> b) & (c > 31 ? ~0u : (1u << c) - 1);
  });
  check<s32, s32, u32, u32>("bfe.s32 d, a, b, c;", [](s32 a, u32 b, u32 c) {
    b &= 255, c &= 255;
    u32 sign = c == 0 ? 0 : u32(a) >> std::min(b + c - 1, 31u) & 1, d = 0;
    for (u32 i = 0; i < 32; ++i) d |= (i < c && b + i <= 31 ? u32(a) >> (b + i) & 1 : sign) << i;
    return s32(d);
  });
  check<u32, u32, u32, u32>("bfi.b32 d, a, b, c, 7;", [](u32 a, u32 b, u32 c) {
    c &= 255;
    for (u32 i = 0; i < 7 && c + i <= 31; ++i) b = (b & ~(1u << (c + i))) | (a >> i & 1) << (c + i);
    return b;
  });
  check<u32, u32, u32, u32>("prmt.b32 d, a, b, c;", [](u32 a, u32 b, u32 c) {
    u32 r = 0;
    for (int k = 0; k < 4; ++k) {
      u32 s = c >> 4 * k & 15, v = u32((u64(b) << 32 | a) >> 8 * (s & 7)) & 255;
      r |= (s & 8 ? (v & 128 ? 255u : 0) : v) << 8 * k;
    }
    return r;
  });
  check<u32, u32, u32, u32>("lop3.b32 d, a, b, c, 0xE8;",
                            [](u32 a, u32 b, u32 c) { return (a & b) | (a & c) | (b & c); });
  check2<u32>("brev.b32 d, a;", [](u32 a, u32) {
    u32 r = 0;
    for (int i = 0; i < 32; ++i) r |= (a >> i & 1) << (31 - i);
    return r;
  });
  check<s32, u32, u32, s32>("dp4a.s32.s32 d, a, b, c;", [](u32 a, u32 b, s32 c) {
    u32 sum = u32(c);
    for (int k = 0; k < 4; ++k) sum += u32(s32(s8(a >> 8 * k)) * s8(b >> 8 * k));
    return s32(sum);
  });
  check<u64, u32, u32, u64>("mov.b64 d, {a, b};",
                            [](u32 a, u32 b, u64) { return u64(b) << 32 | a; });
  check<u32, u64, u32, u32>("{ .reg .b32 x; mov.b64 {x, d}, a; }",
                            [](u64 a, u32, u32) { return u32(a >> 32); });
}

TEST_CASE("carries are kept lane by lane") {
  check<u64, u64, u64, u64>(
      "{ .reg .b32 a0, a1, b0, b1, d0, d1; mov.b64 {a0, a1}, a; mov.b64 {b0, b1}, b;"
      " add.cc.u32 d0, a0, b0; addc.u32 d1, a1, b1; mov.b64 d, {d0, d1}; }",
      [](u64 a, u64 b, u64) { return a + b; });
  check<u64, u64, u64, u64>(
      "{ .reg .b32 a0, a1, b0, b1, d0, d1; mov.b64 {a0, a1}, a; mov.b64 {b0, b1}, b;"
      " sub.cc.u32 d0, a0, b0; subc.u32 d1, a1, b1; mov.b64 d, {d0, d1}; }",
      [](u64 a, u64 b, u64) { return a - b; });
  check<u64, u32, u32, u64>(
      "{ .reg .b32 c0, c1, d0, d1; mov.b64 {c0, c1}, c;"
      " mad.lo.cc.u32 d0, a, b, c0; madc.hi.u32 d1, a, b, c1; mov.b64 d, {d0, d1}; }",
      [](u32 a, u32 b, u64 c) { return u64(a) * b + c; });
}

TEST_CASE("floating point: fused, rounded as asked, flushed as asked") {
  check2<float>("add.f32 d, a, b;", [](float a, float b) { return a + b; });
  check<float, float, float, float>("fma.rn.f32 d, a, b, c;",
                                    [](float a, float b, float c) { return std::fma(a, b, c); });
  check<double, double, double, double>(
      "fma.rn.f64 d, a, b, c;", [](double a, double b, double c) { return std::fma(a, b, c); });
  check2<double>("div.rn.f64 d, a, b;", [](double a, double b) { return a / b; });
  check2<float>("sqrt.rn.f32 d, a;", [](float a, float) { return std::sqrt(a); });
  const std::pair<const char*, int> modes[] = {
      {"rz", FE_TOWARDZERO}, {"rm", FE_DOWNWARD}, {"rp", FE_UPWARD}};
  for (auto [name, mode] : modes) {
    check2<float>(std::string("add.") + name + ".f32 d, a, b;", [&](float a, float b) {
      Rounding r(mode);
      volatile float x = a, y = b;
      return float(x + y);
    });
    check2<double>(std::string("mul.") + name + ".f64 d, a, b;", [&](double a, double b) {
      Rounding r(mode);
      volatile double x = a, y = b;
      return double(x * y);
    });
    check<float, double, double, double>(std::string("cvt.") + name + ".f32.f64 d, a;",
                                         [&](double a, double, double) {
                                           Rounding r(mode);
                                           volatile double x = a;
                                           return float(x);
                                         });
  }
  check2<float>("mul.ftz.f32 d, a, b;",
                [](float a, float b) { return flushed(flushed(a) * flushed(b)); });
  check2<float>("add.sat.f32 d, a, b;", [](float a, float b) {
    float s = a + b;
    return s > 0 ? std::min(s, 1.f) : 0.f;
  });
  auto lower = [](auto a, auto b) {
    if (a != a) return b;
    if (b != b) return a;
    return a == b ? (std::signbit(a) ? a : b) : std::min(a, b);
  };
  check2<float>("min.f32 d, a, b;", lower);
  check2<double>("min.f64 d, a, b;", lower);
  check2<float>("max.NaN.f32 d, a, b;", [](float a, float b) {
    if (a != a || b != b) return std::numeric_limits<float>::quiet_NaN();
    return a == b ? (std::signbit(a) ? b : a) : std::max(a, b);
  });
  check2<u32>("neg.f32 d, a;", [](u32 a, u32) { return a ^ 0x80000000u; });
  check2<u32>("copysign.f32 d, a, b;",
              [](u32 a, u32 b) { return (b & 0x7fffffffu) | (a & 0x80000000u); });
  check<bool, float, float, float>("testp.subnormal.f32 d, a;", [](float a, float, float) {
    return std::fpclassify(a) == FP_SUBNORMAL;
  });
}

TEST_CASE("comparisons, their combinations and selections") {
  check<bool, float, float, bool>("setp.ltu.f32 d, a, b;",
                                  [](float a, float b, bool) { return !(a >= b); });
  check<bool, float, float, bool>("setp.ne.f32 d, a, b;",
                                  [](float a, float b, bool) { return a < b || a > b; });
  check<bool, double, double, bool>("setp.num.f64 d, a, b;",
                                    [](double a, double b, bool) { return a == a && b == b; });
  check<bool, s32, s32, bool>("setp.le.and.s32 d, a, b, !c;",
                              [](s32 a, s32 b, bool c) { return a <= b && !c; });
  check<bool, u64, u64, bool>("setp.hi.xor.u64 d, a, b, c;",
                              [](u64 a, u64 b, bool c) { return (a > b) != c; });
  check<bool, s16, s16, bool>("{ .reg .pred q; setp.gt.s16 q|d, a, b; }",
                              [](s16 a, s16 b, bool) { return a <= b; });
  check<u32, u32, u32, bool>("selp.b32 d, a, b, c;",
                             [](u32 a, u32 b, bool c) { return c ? a : b; });
  check<u32, float, float, u32>("set.gt.u32.f32 d, a, b;",
                                [](float a, float b, u32) { return a > b ? ~0u : 0u; });
  check<u32, u32, u32, s32>("slct.u32.s32 d, a, b, c;",
                            [](u32 a, u32 b, s32 c) { return c >= 0 ? a : b; });
}

TEST_CASE("conversions saturate, extend and round") {
  check<s32, float, s32, s32>("cvt.rzi.s32.f32 d, a;", [](float a, s32, s32) {
    return a != a ? 0 : a >= 0x1p31f ? INT32_MAX : a < -0x1p31f ? INT32_MIN : s32(a);
  });
  check<u64, double, u64, u64>("cvt.rni.u64.f64 d, a;", [](double a, u64, u64) {
    double r = std::nearbyint(a);
    return a != a || r <= 0 ? u64{0} : r >= 0x1p64 ? ~u64{0} : u64(r);
  });
  check<s32, float, s32, s32>("{ .reg .b16 t; cvt.rmi.s8.f32 t, a; cvt.s32.s8 d, t; }",
                              [](float a, s32, s32) {
                                float r = std::floor(a);
                                return a != a ? 0 : s32(std::clamp(r, -128.f, 127.f));
                              });
  check<float, u64, u64, u64>("cvt.rn.f32.u64 d, a;", [](u64 a, u64, u64) { return float(a); });
  check<float, s64, s64, s64>("cvt.rz.f32.s64 d, a;", [](s64 a, s64, s64) {
    Rounding r(FE_TOWARDZERO);
    volatile s64 x = a;
    return float(x);
  });
  check<double, u32, u32, u32>("cvt.rn.f64.u32 d, a;", [](u32 a, u32, u32) { return double(a); });
  check<s64, u32, u32, u32>("cvt.s64.s8 d, a;", [](u32 a, u32, u32) { return s64(s8(a)); });
  check<u16, u64, u64, u64>("cvt.u16.u64 d, a;", [](u64 a, u64, u64) { return u16(a); });
  check<u16, s32, s32, s32>("cvt.sat.u8.s32 d, a;",
                            [](s32 a, s32, s32) { return u16(std::clamp(a, 0, 255)); });
  check<s32, u32, u32, u32>("cvt.sat.s32.u32 d, a;",
                            [](u32 a, u32, u32) { return s32(std::min(a, u32(INT32_MAX))); });
  check<float, float, float, float>("cvt.rpi.f32.f32 d, a;",
                                    [](float a, float, float) { return std::ceil(a); });
  check<float, float, float, float>("{ .reg .b16 h; cvt.rn.bf16.f32 h, a; cvt.f32.bf16 d, h; }",
                                    [](float a, float, float) {
                                      u32 b = std::bit_cast<u32>(a);
                                      if (a != a) return a;
                                      b = (b + 0x7fff + (b >> 16 & 1)) & 0xffff0000u;
                                      return std::bit_cast<float>(b);
                                    });
  auto half = [](double a) {  // to nearest even with 11 bits, by hand
    if (a != a || a == 0 || std::isinf(a)) return float(a);
    int e = std::max(std::ilogb(a), -14);
    double step = std::ldexp(1.0, e - 10), r = std::nearbyint(a / step) * step;
    return float(std::fabs(r) > 65504 ? std::copysign(INFINITY, a) : r);
  };
  check<float, float, float, float>("{ .reg .b16 h; cvt.rn.f16.f32 h, a; cvt.f32.f16 d, h; }",
                                    [&](float a, float, float) { return half(a); });
  check<float, double, float, float>("{ .reg .b16 h; cvt.rn.f16.f64 h, a; cvt.f32.f16 d, h; }",
                                     [&](double a, float, float) { return half(a); });
  check<float, u16, u16, u16>(
      "{ .reg .b16 h; fma.rn.f16 h, a, b, c; cvt.f32.f16 d, h; }", [&](u16 a, u16 b, u16 c) {
        auto wide = [](u16 h) {
          int e = h >> 10 & 31, m = h & 1023;
          double v = e == 31 ? (m ? NAN : INFINITY)
                     : e     ? std::ldexp(1024 + m, e - 25)
                             : std::ldexp(m, -24);
          return h & 0x8000 ? -v : v;
        };
        long double exact =
            static_cast<long double>(wide(a)) * wide(b) + wide(c);  // 64 bits hold it
        if (exact != exact || exact == 0 || std::isinf(exact)) return float(exact);
        int e = std::max(std::ilogb(exact), -14);
        long double step = std::ldexp(1.0L, e - 10), r = std::nearbyint(exact / step) * step;
        return float(std::fabs(r) > 65504 ? std::copysign(INFINITY, double(exact)) : double(r));
      });
}

TEST_CASE("fp8 conversions hit every code") {
  TestDevice d;
  REQUIRE_MESSAGE(d.load({R"(.version 8.0
.target sm_89
.address_size 64
.visible .entry k(.param .u64 p) {
  .reg .b64 %p; .reg .b32 %t, %h; .reg .b16 %x, %y, %lo, %hi; .reg .f32 %f, %g;
  ld.param.u64 %p, [p];
  mov.u32 %t, %tid.x;
  cvt.u16.u32 %x, %t;
  cvt.rn.f16x2.e4m3x2 %h, %x;
  mov.b32 {%lo, %hi}, %h;
  cvt.f32.f16 %f, %lo;
  mov.f32 %g, 0f00000000;
  cvt.rn.satfinite.e4m3x2.f32 %y, %g, %f;
  mad.wide.u32 %p, %t, 8, %p;
  st.global.f32 [%p], %f;
  cvt.u32.u16 %h, %y;
  st.global.u32 [%p+4], %h;
  ret;
})"}),
                  d.log);
  struct Row {
    float value;
    uint32_t code;
  };
  auto* rows = d.alloc<Row>(256);
  CHECK_RUN(d.run("k", {1}, {256}, rows));
  for (uint32_t c = 0; c < 256; ++c) {
    if ((c & 0x7f) == 0x7f) {
      CHECK(std::isnan(rows[c].value));
      CHECK(rows[c].code == 0x7f);
    } else {
      CHECK(rows[c].code == c);
    }
  }
  CHECK(rows[0x7e].value == 448);
  CHECK(rows[1].value == 0x1p-9f);
}
