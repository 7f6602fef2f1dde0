// Loads and stores over lanes, by the pattern of their addresses.
// SPDX-License-Identifier: Apache-2.0
//
// A warp's addresses are mostly consecutive (one copy) or equal (one load, broadcast). Each chunk
// of 32 lanes is tested for that first, then its halves, and only then is it gathered lane by lane.
// Every access is checked against the window that it lies in, before memory is touched.
#include "lanes.hpp"
#include "tables.hpp"

namespace softgpu::simt::SOFTGPU_ISA {
namespace {

[[gnu::noinline]] bool fault(MemoryAccess& m, u64 address, int lane, bool misaligned) {
  m.fault_address = address;
  m.fault_lane = lane;
  m.misaligned = misaligned;
  return false;
}

inline u64 offset_of(const MemoryAccess& m, int lane) {
  return m.address_bytes == 8
             ? static_cast<const u64*>(m.address)[lane] + static_cast<u64>(m.offset)
             : u64{static_cast<const u32*>(m.address)[lane] + static_cast<u32>(m.offset)};
}

inline bool inside(const Window& w, u64 offset, u64 bytes) {
  return bytes <= w.size && offset - w.base <= w.size - bytes;
}

/// Makes `m.window` hold this access of one lane.
inline bool admit(MemoryAccess& m, u64 offset, int lane, u32 bytes) {
  if (offset & (bytes - 1)) return fault(m, offset, lane, true);
  if (inside(*m.window, offset, bytes)) [[likely]]
    return true;
  if (find_window(m.view, m.space, lane, offset, bytes, m.window)) return true;
  return fault(m, offset, lane, false);
}

inline char* host_of(const Window& w, u64 offset, int lane) {
  return w.host + (offset - w.base) + w.lane_stride * static_cast<u64>(lane);
}

enum class Pattern { scattered, consecutive, equal };

/// How the addresses of N lanes relate, when each accesses `bytes`.
template <class A, u32 bytes, int N>
[[gnu::always_inline]] inline Pattern pattern_of(const A* a) {
  const A first = a[0];
  const A last = a[N - 1];
  if (last == first) {
    A differ = 0;
    for (int k = 0; k < N; ++k) differ |= a[k] ^ first;
    return differ == 0 ? Pattern::equal : Pattern::scattered;
  }
  if (last != static_cast<A>(first + (N - 1) * A{bytes})) return Pattern::scattered;
  A differ = 0;
  for (int k = 0; k < N; ++k) differ |= a[k] ^ static_cast<A>(first + static_cast<A>(k) * A{bytes});
  return differ == 0 ? Pattern::consecutive : Pattern::scattered;
}

/// The parts of an access that the loops below keep in registers: the slots that they write could
/// otherwise be anything, MemoryAccess included.
template <class A>
struct Run {
  const A* address;
  A offset;
  u64 base;
  u64 size;
  char* host;

  explicit Run(const MemoryAccess& m)
      : address(static_cast<const A*>(m.address)), offset(static_cast<A>(m.offset)) {
    reload(m);
  }
  void reload(const MemoryAccess& m) {
    base = m.window->base;
    size = m.window->size;
    host = m.window->host;
  }
  /// The memory of N lanes from `lane` on, or null when it is not all in the window.
  template <u32 bytes, int N>
  [[gnu::always_inline]] char* memory(int lane, Pattern how) const {
    const u64 at = static_cast<A>(address[lane] + offset);
    const u64 extent = how == Pattern::equal ? bytes : u64{bytes} * N;
    if ((at & (bytes - 1)) || extent > size || at - base > size - extent) return nullptr;
    return host + (at - base);
  }
};

template <class M>
[[gnu::always_inline]] inline M read(const char* p) {
  M v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class M>
[[gnu::always_inline]] inline void write(char* p, M v) {
  std::memcpy(p, &v, sizeof v);
}

/// The pattern of a warp in bits 0-1 and, when it has none, those of its halves in bits 2-3 and
/// 4-5.
template <class A, u32 bytes>
[[gnu::always_inline]] inline u8 classify(const A* a) {
  const Pattern whole = pattern_of<A, bytes, kWarp>(a);
  if (whole != Pattern::scattered) [[likely]]
    return static_cast<u8>(whole);
  const Pattern low = pattern_of<A, bytes, kWarp / 2>(a);
  const Pattern high = pattern_of<A, bytes, kWarp / 2>(a + kWarp / 2);
  return static_cast<u8>(static_cast<u8>(low) << 2 | static_cast<u8>(high) << 4);
}
inline Pattern whole_of(u8 code) { return static_cast<Pattern>(code & 3); }
inline Pattern half_of(u8 code, int half) {
  return static_cast<Pattern>(code >> (2 + 2 * half) & 3);
}

/// N lanes of which each has V elements of type M. False when they form no run in the window.
template <class R, class M, int V, int N, class A>
[[gnu::always_inline]] inline bool load_run(const Run<A>& run, char* const* regs, int lane,
                                            Pattern how) {
  constexpr u32 bytes = sizeof(M) * V;
  if (how == Pattern::scattered) return false;
  const char* p = run.template memory<bytes, N>(lane, how);
  if (!p) return false;
  for (int v = 0; v < V; ++v) {
    if (V > 1 && !regs[v]) continue;
    R* d = reinterpret_cast<R*>(regs[v]) + lane;
    if (how == Pattern::equal) {
      const R value = static_cast<R>(read<M>(p + v * sizeof(M)));
      for (int k = 0; k < N; ++k) d[k] = value;
    } else if constexpr (V == 1 && sizeof(R) == sizeof(M)) {
      std::memcpy(d, p, sizeof(M) * N);
    } else {
      for (int k = 0; k < N; ++k) {
        d[k] = static_cast<R>(read<M>(p + static_cast<size_t>(k * V + v) * sizeof(M)));
      }
    }
  }
  return true;
}

template <class M, class R, int V, int N, class A>
[[gnu::always_inline]] inline bool store_run(const Run<A>& run, char* const* regs, int lane,
                                             Pattern how) {
  constexpr u32 bytes = sizeof(M) * V;
  if (how != Pattern::consecutive) return false;
  char* p = run.template memory<bytes, N>(lane, Pattern::consecutive);
  if (!p) return false;
  for (int v = 0; v < V; ++v) {
    const R* s = reinterpret_cast<const R*>(regs[v]) + lane;
    if constexpr (V == 1 && sizeof(R) == sizeof(M)) {
      std::memcpy(p, s, sizeof(M) * N);
    } else {
      for (int k = 0; k < N; ++k) {
        write<M>(p + static_cast<size_t>(k * V + v) * sizeof(M), static_cast<M>(s[k]));
      }
    }
  }
  return true;
}

template <class R, class M>
inline void load_one(MemoryAccess& m, int lane, const char* p) {
  for (int v = 0; v < m.count; ++v) {
    if (m.regs[v])
      reinterpret_cast<R*>(m.regs[v])[lane] = static_cast<R>(read<M>(p + v * sizeof(M)));
  }
}
template <class M, class R>
inline void store_one(MemoryAccess& m, int lane, char* p) {
  for (int v = 0; v < m.count; ++v) {
    write<M>(p + v * sizeof(M), static_cast<M>(reinterpret_cast<const R*>(m.regs[v])[lane]));
  }
}

/// A whole warp without a pattern, all of it inside the current window? Fills its offsets in.
inline bool scattered_inside(const MemoryAccess& m, int base, u32 bytes, u64* at) {
  const Window w = *m.window;
  if (w.size < bytes) return false;
  if (m.address_bytes == 8) {
    const u64* a = static_cast<const u64*>(m.address) + base;
    const u64 shift = static_cast<u64>(m.offset) - w.base;
    for (int k = 0; k < kWarp; ++k) at[k] = a[k] + shift;
  } else {
    const u32* a = static_cast<const u32*>(m.address) + base;
    const u32 offset = static_cast<u32>(m.offset);
    for (int k = 0; k < kWarp; ++k) at[k] = u64{a[k] + offset} - w.base;
  }
  const u64 limit = w.size - bytes;
  u64 bad = w.base & (bytes - 1);
  for (int k = 0; k < kWarp; ++k) bad |= static_cast<u64>(at[k] > limit) | (at[k] & (bytes - 1));
  if (bad) return false;
  if (w.lane_stride) {
    for (int k = 0; k < kWarp; ++k) at[k] += w.lane_stride * static_cast<u64>(base + k);
  }
  return true;
}

/// One warp without a pattern that fits the window: scattered lanes, a mask, another window, a
/// fault.
template <class R, class M>
[[gnu::noinline]] bool load_warp(MemoryAccess& m, int base, u32 rest) {
  const u32 bytes = static_cast<u32>(sizeof(M)) * static_cast<u32>(m.count);
  alignas(64) u64 at[kWarp];
  if (rest == ~0u && scattered_inside(m, base, bytes, at)) {
    const char* host = m.window->host;
    if (m.count == 1) {
      R* d = reinterpret_cast<R*>(m.regs[0]) + base;
      for (int k = 0; k < kWarp; ++k) d[k] = static_cast<R>(read<M>(host + at[k]));
    } else {
      for (int k = 0; k < kWarp; ++k) load_one<R, M>(m, base + k, host + at[k]);
    }
    return true;
  }
  for (; rest; rest &= rest - 1) {
    int lane = base + std::countr_zero(rest);
    u64 offset = offset_of(m, lane);
    if (!admit(m, offset, lane, bytes)) return false;
    load_one<R, M>(m, lane, host_of(*m.window, offset, lane));
  }
  return true;
}

template <class M, class R>
[[gnu::noinline]] bool store_warp(MemoryAccess& m, int base, u32 rest) {
  const u32 bytes = static_cast<u32>(sizeof(M)) * static_cast<u32>(m.count);
  alignas(64) u64 at[kWarp];
  if (rest == ~0u && scattered_inside(m, base, bytes, at)) {
    char* host = m.window->host;
    for (int k = 0; k < kWarp; ++k) store_one<M, R>(m, base + k, host + at[k]);
    return true;
  }
  for (; rest; rest &= rest - 1) {
    int lane = base + std::countr_zero(rest);
    u64 offset = offset_of(m, lane);
    if (!admit(m, offset, lane, bytes)) return false;
    store_one<M, R>(m, lane, host_of(*m.window, offset, lane));
  }
  return true;
}

template <class R, class M, int V, class A>
bool load_count(MemoryAccess& m) {
  const bool runs = m.window->lane_stride == 0;
  Run<A> run(m);
  char* const first = m.regs[0];
  char* const* regs = V == 1 ? &first : m.regs;
  const u32* const masks = m.mask;
  const LaneRange lanes = m.lanes;
  const bool known = m.patterns_known;
  u8* const patterns = m.patterns;
  for (int base = lanes.lo; base < lanes.hi; base += kWarp) {
    u32 rest = masks[base / kWarp];
    if (rest == ~0u && runs) [[likely]] {
      if (!known) patterns[base / kWarp] = classify<A, sizeof(M) * V>(run.address + base);
      const u8 code = patterns[base / kWarp];
      if (load_run<R, M, V, kWarp>(run, regs, base, whole_of(code))) [[likely]]
        continue;
      if (load_run<R, M, V, kWarp / 2>(run, regs, base, half_of(code, 0))) rest &= 0xffff0000u;
      if (load_run<R, M, V, kWarp / 2>(run, regs, base + kWarp / 2, half_of(code, 1)))
        rest &= 0x0000ffffu;
    }
    if (!rest) continue;
    if (!load_warp<R, M>(m, base, rest)) return false;
    run.reload(m);
  }
  return true;
}

template <class M, class R, int V, class A>
bool store_count(MemoryAccess& m) {
  const bool runs = m.window->lane_stride == 0;
  Run<A> run(m);
  char* const first = m.regs[0];
  char* const* regs = V == 1 ? &first : m.regs;
  const u32* const masks = m.mask;
  const LaneRange lanes = m.lanes;
  const bool known = m.patterns_known;
  u8* const patterns = m.patterns;
  for (int base = lanes.lo; base < lanes.hi; base += kWarp) {
    u32 rest = masks[base / kWarp];
    if (rest == ~0u && runs) [[likely]] {
      if (!known) patterns[base / kWarp] = classify<A, sizeof(M) * V>(run.address + base);
      const u8 code = patterns[base / kWarp];
      if (store_run<M, R, V, kWarp>(run, regs, base, whole_of(code))) [[likely]]
        continue;
      if (store_run<M, R, V, kWarp / 2>(run, regs, base, half_of(code, 0))) rest &= 0xffff0000u;
      if (store_run<M, R, V, kWarp / 2>(run, regs, base + kWarp / 2, half_of(code, 1)))
        rest &= 0x0000ffffu;
    }
    if (!rest) continue;
    if (!store_warp<M, R>(m, base, rest)) return false;
    run.reload(m);
  }
  return true;
}

/// Accesses without fast paths: registers much wider than what is in memory, in vectors.
template <class R, class M>
bool load_plain(MemoryAccess& m) {
  for (int base = m.lanes.lo; base < m.lanes.hi; base += kWarp) {
    const u32 mask = m.mask[base / kWarp];
    if (mask && !load_warp<R, M>(m, base, mask)) return false;
  }
  return true;
}
template <class M, class R>
bool store_plain(MemoryAccess& m) {
  for (int base = m.lanes.lo; base < m.lanes.hi; base += kWarp) {
    const u32 mask = m.mask[base / kWarp];
    if (mask && !store_warp<M, R>(m, base, mask)) return false;
  }
  return true;
}

/// Every combination is an instance of the loops: only those that compilers emit are worth it.
template <class R, class M>
inline constexpr bool usual = sizeof(R) == sizeof(M) || (sizeof(M) == 1 && sizeof(R) == 2);

template <class R, class M>
bool load(MemoryAccess& m) {
  const bool wide = m.address_bytes == 8;
  switch (m.count) {
    case 1:
      return wide ? load_count<R, M, 1, u64>(m) : load_count<R, M, 1, u32>(m);
    case 2:
      if constexpr (usual<R, M>) {
        return wide ? load_count<R, M, 2, u64>(m) : load_count<R, M, 2, u32>(m);
      }
      break;
    case 4:
      if constexpr (usual<R, M>) {
        return wide ? load_count<R, M, 4, u64>(m) : load_count<R, M, 4, u32>(m);
      }
      break;
    default:
      break;
  }
  return load_plain<R, M>(m);
}
template <class M, class R>
bool store(MemoryAccess& m) {
  const bool wide = m.address_bytes == 8;
  switch (m.count) {
    case 1:
      return wide ? store_count<M, R, 1, u64>(m) : store_count<M, R, 1, u32>(m);
    case 2:
      if constexpr (usual<R, M>) {
        return wide ? store_count<M, R, 2, u64>(m) : store_count<M, R, 2, u32>(m);
      }
      break;
    case 4:
      if constexpr (usual<R, M>) {
        return wide ? store_count<M, R, 4, u64>(m) : store_count<M, R, 4, u32>(m);
      }
      break;
    default:
      break;
  }
  return store_plain<M, R>(m);
}

// By the type in memory (signed ones extend) and the size of the register.
const MemoryEntry entries[] = {
    {"ld.u8.2", load<u16, u8>},   {"ld.u8.4", load<u32, u8>},   {"ld.u8.8", load<u64, u8>},
    {"ld.s8.2", load<u16, s8>},   {"ld.s8.4", load<u32, s8>},   {"ld.s8.8", load<u64, s8>},
    {"ld.u16.2", load<u16, u16>}, {"ld.u16.4", load<u32, u16>}, {"ld.u16.8", load<u64, u16>},
    {"ld.s16.2", load<u16, u16>}, {"ld.s16.4", load<u32, s16>}, {"ld.s16.8", load<u64, s16>},
    {"ld.u32.4", load<u32, u32>}, {"ld.u32.8", load<u64, u32>}, {"ld.s32.4", load<u32, u32>},
    {"ld.s32.8", load<u64, s32>}, {"ld.u64.8", load<u64, u64>}, {"ld.s64.8", load<u64, u64>},
    {"st.8.2", store<u8, u16>},   {"st.8.4", store<u8, u32>},   {"st.8.8", store<u8, u64>},
    {"st.16.2", store<u16, u16>}, {"st.16.4", store<u16, u32>}, {"st.16.8", store<u16, u64>},
    {"st.32.4", store<u32, u32>}, {"st.32.8", store<u32, u64>}, {"st.64.8", store<u64, u64>},
};

template <class T>
void blend(void* dp, const void* sp, const uint8_t* mask, LaneRange r) {
  T* d = static_cast<T*>(dp);
  const T* s = static_cast<const T*>(sp);
  SOFTGPU_LANES(d[i] = mask[i] ? s[i] : d[i])
}

}  // namespace

std::span<const MemoryEntry> memory_entries() { return entries; }

BlendFn blend_of(unsigned bytes) {
  return bytes == 1 ? blend<u8> : bytes == 2 ? blend<u16> : bytes == 4 ? blend<u32> : blend<u64>;
}

}  // namespace softgpu::simt::SOFTGPU_ISA
