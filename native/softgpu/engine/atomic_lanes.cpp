// Atomic operations over lanes.
// SPDX-License-Identifier: Apache-2.0
//
// Several blocks run at once and pinned memory is seen by the host, so these are real host atomics
// everywhere but in shared memory, which belongs to one block and so to one thread at a time.
#include "numeric.hpp"
#include "tables.hpp"

namespace softgpu::simt::SOFTGPU_ISA {
namespace {

[[gnu::noinline]] bool fault(MemoryAccess& m, u64 address, int lane, bool misaligned) {
  m.fault_address = address;
  m.fault_lane = lane;
  m.misaligned = misaligned;
  return false;
}

/// Where a lane's word is, or null after a fault.
inline char* locate(MemoryAccess& m, int lane, u32 bytes) {
  u64 at = m.address_bytes == 8
               ? static_cast<const u64*>(m.address)[lane] + static_cast<u64>(m.offset)
               : u64{static_cast<const u32*>(m.address)[lane] + static_cast<u32>(m.offset)};
  if (at & (bytes - 1)) {
    fault(m, at, lane, true);
    return nullptr;
  }
  Window& w = *m.window;
  if (w.size < bytes || at - w.base > w.size - bytes) {
    if (!find_window(m.view, m.space, lane, at, bytes, &w)) {
      fault(m, at, lane, false);
      return nullptr;
    }
  }
  return w.host + (at - w.base) + w.lane_stride * static_cast<u64>(lane);
}

#define OPERATION(name, expr)      \
  struct name {                    \
    template <class T>             \
    static T apply(T a, T b) {     \
      return static_cast<T>(expr); \
    }                              \
  }
OPERATION(Add, a + b);
OPERATION(And, a& b);
OPERATION(Or, a | b);
OPERATION(Xor, a ^ b);
OPERATION(Exchange, b);
OPERATION(Inc, a >= b ? 0 : a + 1);
OPERATION(Dec, a == 0 || a > b ? b : a - 1);
template <class T>
inline constexpr bool is_float = std::is_floating_point_v<T>;
struct Min {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (is_float<T>)
      return minimum(a, b);
    else
      return a < b ? a : b;
  }
};
struct Max {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (is_float<T>)
      return maximum(a, b);
    else
      return a > b ? a : b;
  }
};

// Values that are computed on in another form than the word that holds them.
struct Plain {
  template <class Op, class T>
  static T apply(T a, T b) {
    return Op::apply(a, b);
  }
};
struct F16 {
  static f32 get(u16 v) { return half_to_float(v); }
  static u16 put(f32 v) { return float_to_half(v); }
};
struct Bf16 {
  static f32 get(u16 v) { return bf16_to_float(v); }
  static u16 put(f32 v) { return float_to_bf16(v); }
};
template <class H>
struct Half {
  template <class Op, class T>
  static T apply(T a, T b) {
    if constexpr (sizeof(T) == 2) {
      return H::put(Op::apply(H::get(a), H::get(b)));
    } else {
      u16 lo = H::put(Op::apply(H::get(static_cast<u16>(a)), H::get(static_cast<u16>(b))));
      u16 hi =
          H::put(Op::apply(H::get(static_cast<u16>(a >> 16)), H::get(static_cast<u16>(b >> 16))));
      return static_cast<T>(u32{hi} << 16 | lo);
    }
  }
};

template <class T>
struct Word {
  using type = T;
};
template <>
struct Word<f32> {
  using type = u32;
};
template <>
struct Word<f64> {
  using type = u64;
};

template <class T, class Op, class Form, bool shared>
inline T one(char* p, T b) {
  using W = typename Word<T>::type;
  W* word = reinterpret_cast<W*>(p);
  if constexpr (shared) {
    T old = std::bit_cast<T>(*word);
    *word = std::bit_cast<W>(Form::template apply<Op, T>(old, b));
    return old;
  } else {
    if constexpr (std::is_same_v<Form, Plain> && !is_float<T>) {
      if constexpr (std::is_same_v<Op, Add>) return __atomic_fetch_add(word, b, __ATOMIC_SEQ_CST);
      if constexpr (std::is_same_v<Op, And>) return __atomic_fetch_and(word, b, __ATOMIC_SEQ_CST);
      if constexpr (std::is_same_v<Op, Or>) return __atomic_fetch_or(word, b, __ATOMIC_SEQ_CST);
      if constexpr (std::is_same_v<Op, Xor>) return __atomic_fetch_xor(word, b, __ATOMIC_SEQ_CST);
      if constexpr (std::is_same_v<Op, Exchange>) {
        return __atomic_exchange_n(word, b, __ATOMIC_SEQ_CST);
      }
    }
    W old = __atomic_load_n(word, __ATOMIC_RELAXED);
    W next;
    do {
      next = std::bit_cast<W>(Form::template apply<Op, T>(std::bit_cast<T>(old), b));
    } while (
        !__atomic_compare_exchange_n(word, &old, next, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    return std::bit_cast<T>(old);
  }
}

template <class T, class Op, class Form, bool shared>
bool sweep(MemoryAccess& m) {
  for (int base = m.lanes.lo; base < m.lanes.hi; base += kWarp) {
    for (u32 rest = m.mask[base / kWarp]; rest; rest &= rest - 1) {
      int lane = base + std::countr_zero(rest);
      char* p = locate(m, lane, static_cast<u32>(sizeof(T)) * static_cast<u32>(m.count));
      if (!p) return false;
      // A vector's elements are atomic one by one. Its operands follow the results in `regs`.
      for (int v = 0; v < m.count; ++v) {
        const T* b = reinterpret_cast<const T*>(m.count == 1 ? m.second : m.regs[4 + v]);
        T old = one<T, Op, Form, shared>(p + static_cast<size_t>(v) * sizeof(T), b[lane]);
        if (m.regs[v]) reinterpret_cast<T*>(m.regs[v])[lane] = old;
      }
    }
  }
  return true;
}

template <class T, bool shared>
bool compare_and_swap(MemoryAccess& m) {
  for (int base = m.lanes.lo; base < m.lanes.hi; base += kWarp) {
    for (u32 rest = m.mask[base / kWarp]; rest; rest &= rest - 1) {
      int lane = base + std::countr_zero(rest);
      char* p = locate(m, lane, sizeof(T));
      if (!p) return false;
      T* word = reinterpret_cast<T*>(p);
      T expected = reinterpret_cast<const T*>(m.second)[lane];
      T value = reinterpret_cast<const T*>(m.third)[lane];
      if constexpr (shared) {
        T old = *word;
        if (old == expected) *word = value;
        expected = old;
      } else {
        __atomic_compare_exchange_n(word, &expected, value, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST);
      }
      if (m.regs[0]) reinterpret_cast<T*>(m.regs[0])[lane] = expected;
    }
  }
  return true;
}

// "atom" for global and generic addresses, "atoms" for shared ones.
#define BOTH(key, T, Op, Form) \
  {"atom." key, sweep<T, Op, Form, false>}, { "atoms." key, sweep<T, Op, Form, true> }
#define CAS(key, T) \
  {"atom.cas." key, compare_and_swap<T, false>}, { "atoms.cas." key, compare_and_swap<T, true> }
#define BITS(n)                                                                     \
  BOTH("and.b" #n, u##n, And, Plain), BOTH("or.b" #n, u##n, Or, Plain),             \
      BOTH("xor.b" #n, u##n, Xor, Plain), BOTH("exch.b" #n, u##n, Exchange, Plain), \
      BOTH("add.u" #n, u##n, Add, Plain), BOTH("min.u" #n, u##n, Min, Plain),       \
      BOTH("max.u" #n, u##n, Max, Plain), BOTH("min.s" #n, s##n, Min, Plain),       \
      BOTH("max.s" #n, s##n, Max, Plain)
#define HALF(key, T, H)                                                 \
  BOTH("add." key, T, Add, Half<H>), BOTH("min." key, T, Min, Half<H>), \
      BOTH("max." key, T, Max, Half<H>)

const MemoryEntry entries[] = {
    BITS(32),
    BITS(64),
    CAS("b16", u16),
    CAS("b32", u32),
    CAS("b64", u64),
    BOTH("inc.u32", u32, Inc, Plain),
    BOTH("dec.u32", u32, Dec, Plain),
    BOTH("add.f32", f32, Add, Plain),
    BOTH("add.f64", f64, Add, Plain),
    BOTH("exch.b16", u16, Exchange, Plain),
    HALF("f16", u16, F16),
    HALF("bf16", u16, Bf16),
    HALF("f16x2", u32, F16),
    HALF("bf16x2", u32, Bf16),
};

}  // namespace

std::span<const MemoryEntry> atomic_entries() { return entries; }

}  // namespace softgpu::simt::SOFTGPU_ISA
