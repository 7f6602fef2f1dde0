// f32 and f64 arithmetic over lanes.
// SPDX-License-Identifier: Apache-2.0
#include <cfloat>

#include "numeric.hpp"
#include "tables.hpp"

namespace softgpu::simt::SOFTGPU_ISA {
namespace {

template <class F>
inline F sign_xor(F a, F b, F r) {  // |r| with the product's sign
  using B = typename Bits<F>::type;
  constexpr B sign = B{1} << (sizeof(B) * 8 - 1);
  B s = (std::bit_cast<B>(a) ^ std::bit_cast<B>(b)) & sign;
  return std::bit_cast<F>(static_cast<B>((std::bit_cast<B>(r) & ~sign) | s));
}

inline f32 flush(f32 a) {
  u32 b = std::bit_cast<u32>(a);
  return std::bit_cast<f32>((b & 0x7f800000u) == 0 ? b & 0x80000000u : b);
}

#define PER_FLOAT(f)                                                                            \
  ALU2("add." #f, f, f, f, a + b), ALU2("sub." #f, f, f, f, a - b),                             \
      ALU2("mul." #f, f, f, f, a* b), ALU2("div." #f, f, f, f, a / b),                          \
      ALU3("fma." #f, f, f, f, f, std::fma(a, b, c)), ALU1("rcp." #f, f, f, f{1} / a),          \
      ALU1("sqrt." #f, f, f, std::sqrt(a)), ALU1("rsqrt." #f, f, f, f{1} / std::sqrt(a)),       \
      ALU1("neg." #f, f, f, -a), ALU1("abs." #f, f, f, std::fabs(a)),                           \
      ALU2("min." #f, f, f, f, minimum(a, b)), ALU2("max." #f, f, f, f, maximum(a, b)),         \
      ALU2("min.NaN." #f, f, f, f, minimum_nan(a, b)),                                          \
      ALU2("max.NaN." #f, f, f, f, maximum_nan(a, b)),                                          \
      ALU2("copysign." #f, f, f, f, std::copysign(b, a)), ALU1("sat." #f, f, f, saturate01(a)), \
      ALU1("rint." #f, f, f, std::nearbyint(a)), ALU1("trunc." #f, f, f, std::trunc(a)),        \
      ALU1("floor." #f, f, f, std::floor(a)), ALU1("ceil." #f, f, f, std::ceil(a)),             \
      ALU1("testp.finite." #f, u8, f, std::fabs(a) <= f##_max),                                 \
      ALU1("testp.infinite." #f, u8, f, std::fabs(a) > f##_max),                                \
      ALU1("testp.number." #f, u8, f, a == a), ALU1("testp.notanumber." #f, u8, f, a != a),     \
      ALU1("testp.normal." #f, u8, f, std::fabs(a) >= f##_min && std::fabs(a) <= f##_max),      \
      ALU1("testp.subnormal." #f, u8, f, a != 0 && std::fabs(a) < f##_min)

constexpr f32 f32_max = FLT_MAX, f32_min = FLT_MIN;
constexpr f64 f64_max = DBL_MAX, f64_min = DBL_MIN;

const AluEntry entries[] = {
    PER_FLOAT(f32),
    PER_FLOAT(f64),
    ALU2("min.xorsign.abs.f32", f32, f32, f32, sign_xor(a, b, minimum(std::fabs(a), std::fabs(b)))),
    ALU2("max.xorsign.abs.f32", f32, f32, f32, sign_xor(a, b, maximum(std::fabs(a), std::fabs(b)))),
    ALU2("min.NaN.xorsign.abs.f32", f32, f32, f32,
         sign_xor(a, b, minimum_nan(std::fabs(a), std::fabs(b)))),
    ALU2("max.NaN.xorsign.abs.f32", f32, f32, f32,
         sign_xor(a, b, maximum_nan(std::fabs(a), std::fabs(b)))),
    // Three-operand forms of newer targets.
    ALU3("min3.f32", f32, f32, f32, f32, minimum(minimum(a, b), c)),
    ALU3("max3.f32", f32, f32, f32, f32, maximum(maximum(a, b), c)),
    ALU1("flush.f32", f32, f32, flush(a)),
    ALU1("ex2.f32", f32, f32, std::exp2(a)),
    ALU1("lg2.f32", f32, f32, std::log2(a)),
    ALU1("sin.f32", f32, f32, std::sin(a)),
    ALU1("cos.f32", f32, f32, std::cos(a)),
    ALU1("tanh.f32", f32, f32, std::tanh(a)),
};

}  // namespace

std::span<const AluEntry> float_entries() { return entries; }

}  // namespace softgpu::simt::SOFTGPU_ISA
