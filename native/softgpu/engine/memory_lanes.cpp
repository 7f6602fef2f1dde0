// Loads and stores over lanes, by the pattern of their addresses.
// SPDX-License-Identifier: Apache-2.0
//
// A warp's addresses are mostly consecutive (one copy) or equal (one load, broadcast). Each chunk of
// 32 lanes is tested for that first, then its halves, and only then is it gathered lane by lane.
// Every access is checked against the window that it lies in, before memory is touched.
#include "lanes.hpp"
#include "tables.hpp"

namespace softgpu::simt::SOFTGPU_ISA {
namespace {

/// The 32 offsets of a chunk, and how they relate.
struct Offsets {
  alignas(64) u64 at[kWarp];
};

inline void read_offsets(const MemoryAccess& m, int base, Offsets& o) {
  if (m.address_bytes == 8) {
    const u64* a = static_cast<const u64*>(m.address) + base;
    for (int k = 0; k < kWarp; ++k) o.at[k] = a[k] + static_cast<u64>(m.offset);
  } else {
    const u32* a = static_cast<const u32*>(m.address) + base;
    const u32 offset = static_cast<u32>(m.offset);
    for (int k = 0; k < kWarp; ++k) o.at[k] = a[k] + offset;
  }
}

[[gnu::noinline]] bool fault(MemoryAccess& m, u64 address, int lane, bool misaligned) {
  m.fault_address = address;
  m.fault_lane = lane;
  m.misaligned = misaligned;
  return false;
}

/// Makes `m.window` hold this access of one lane.
inline bool admit(MemoryAccess& m, u64 offset, int lane, u32 bytes) {
  if (offset & (bytes - 1)) return fault(m, offset, lane, true);
  const Window& w = *m.window;
  u64 in = offset - w.base;
  if (in <= w.size - bytes && w.size >= bytes) [[likely]] return true;
  if (find_window(m.view, m.space, lane, offset, bytes, m.window)) return true;
  return fault(m, offset, lane, false);
}

inline char* host_of(const Window& w, u64 offset, int lane) {
  return w.host + (offset - w.base) + w.lane_stride * static_cast<u64>(lane);
}

/// All 32 offsets aligned and inside the current window?
inline bool all_inside(const Window& w, const Offsets& o, u32 bytes) {
  if (w.size < bytes) return false;
  u64 limit = w.size - bytes;
  u64 bad = 0;
  for (int k = 0; k < kWarp; ++k) {
    bad |= static_cast<u64>(o.at[k] - w.base > limit) | (o.at[k] & (bytes - 1));
  }
  return bad == 0;
}

enum class Pattern { scattered, consecutive, equal };

template <int N>
inline Pattern pattern(const u64* at, u64 step) {
  u64 first = at[0];
  if (at[N - 1] == first + (N - 1) * step) {
    u64 differ = 0;
    for (int k = 0; k < N; ++k) differ |= at[k] ^ (first + static_cast<u64>(k) * step);
    if (differ == 0) return Pattern::consecutive;
  } else if (at[N - 1] == first) {
    u64 differ = 0;
    for (int k = 0; k < N; ++k) differ |= at[k] ^ first;
    if (differ == 0) return Pattern::equal;
  }
  return Pattern::scattered;
}

template <class M>
inline M read(const char* p) {
  M v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

/// One element per lane into N lanes of a register.
template <class R, class M, int N>
inline void load_run(char* slot, int lane, const char* p, Pattern how, const u64* at, const Window& w) {
  R* d = reinterpret_cast<R*>(slot) + lane;
  if (how == Pattern::consecutive) {
    if constexpr (sizeof(R) == sizeof(M)) {
      std::memcpy(d, p, sizeof(M) * N);
    } else {
      M v[N];
      std::memcpy(v, p, sizeof v);
      for (int k = 0; k < N; ++k) d[k] = static_cast<R>(v[k]);
    }
  } else if (how == Pattern::equal) {
    R v = static_cast<R>(read<M>(p));
    for (int k = 0; k < N; ++k) d[k] = v;
  } else {
    const char* host = w.host - w.base;
    for (int k = 0; k < N; ++k) {
      d[k] = static_cast<R>(read<M>(host + at[k] + w.lane_stride * static_cast<u64>(lane + k)));
    }
  }
}

/// `count` elements per lane; V lanes lie one after the other in memory when consecutive.
template <class R, class M, int N>
inline void load_lanes(MemoryAccess& m, int lane, const u64* at) {
  const Window& w = *m.window;
  const u32 bytes = static_cast<u32>(sizeof(M)) * static_cast<u32>(m.count);
  Pattern how = w.lane_stride ? Pattern::scattered : pattern<N>(at, bytes);
  if constexpr (N == kWarp) {
    if (how == Pattern::scattered && !w.lane_stride) {
      load_lanes<R, M, kWarp / 2>(m, lane, at);
      load_lanes<R, M, kWarp / 2>(m, lane + kWarp / 2, at + kWarp / 2);
      return;
    }
  }
  const char* p = w.host + (at[0] - w.base);
  if (m.count == 1) {
    load_run<R, M, N>(m.regs[0], lane, p, how, at, w);
    return;
  }
  for (int v = 0; v < m.count; ++v) {
    if (!m.regs[v]) continue;
    R* d = reinterpret_cast<R*>(m.regs[v]) + lane;
    const char* q = p + v * sizeof(M);
    if (how == Pattern::consecutive) {
      for (int k = 0; k < N; ++k) d[k] = static_cast<R>(read<M>(q + static_cast<u64>(k) * bytes));
    } else if (how == Pattern::equal) {
      R value = static_cast<R>(read<M>(q));
      for (int k = 0; k < N; ++k) d[k] = value;
    } else {
      for (int k = 0; k < N; ++k) {
        d[k] = static_cast<R>(read<M>(host_of(w, at[k], lane + k) + v * sizeof(M)));
      }
    }
  }
}

template <class R, class M>
inline bool load_masked(MemoryAccess& m, int base, u32 mask, const Offsets& o) {
  const u32 bytes = static_cast<u32>(sizeof(M)) * static_cast<u32>(m.count);
  for (u32 rest = mask; rest; rest &= rest - 1) {
    int k = std::countr_zero(rest);
    if (!admit(m, o.at[k], base + k, bytes)) return false;
    const char* p = host_of(*m.window, o.at[k], base + k);
    for (int v = 0; v < m.count; ++v) {
      if (m.regs[v]) {
        reinterpret_cast<R*>(m.regs[v])[base + k] = static_cast<R>(read<M>(p + v * sizeof(M)));
      }
    }
  }
  return true;
}

template <class R, class M>
bool load(MemoryAccess& m) {
  const u32 bytes = static_cast<u32>(sizeof(M)) * static_cast<u32>(m.count);
  for (int base = m.lanes.lo; base < m.lanes.hi; base += kWarp) {
    u32 mask = m.mask[base / kWarp];
    if (!mask) continue;
    Offsets o;
    read_offsets(m, base, o);
    if (mask == ~0u) {
      if (!all_inside(*m.window, o, bytes) && !admit(m, o.at[0], base, bytes)) return false;
      if (all_inside(*m.window, o, bytes)) {
        load_lanes<R, M, kWarp>(m, base, o.at);
        continue;
      }
    }
    if (!load_masked<R, M>(m, base, mask, o)) return false;
  }
  return true;
}

template <class M, class R>
bool store(MemoryAccess& m) {
  const u32 bytes = static_cast<u32>(sizeof(M)) * static_cast<u32>(m.count);
  for (int base = m.lanes.lo; base < m.lanes.hi; base += kWarp) {
    u32 mask = m.mask[base / kWarp];
    if (!mask) continue;
    Offsets o;
    read_offsets(m, base, o);
    if (mask == ~0u) {
      if (!all_inside(*m.window, o, bytes) && !admit(m, o.at[0], base, bytes)) return false;
      if (all_inside(*m.window, o, bytes)) {
        const Window& w = *m.window;
        const bool run = !w.lane_stride && pattern<kWarp>(o.at, bytes) == Pattern::consecutive;
        char* p = w.host + (o.at[0] - w.base);
        for (int v = 0; v < m.count; ++v) {
          const R* s = reinterpret_cast<const R*>(m.regs[v]) + base;
          if (run && m.count == 1 && sizeof(M) == sizeof(R)) {
            std::memcpy(p, s, sizeof(M) * kWarp);
          } else if (run && m.count == 1) {
            M values[kWarp];
            for (int k = 0; k < kWarp; ++k) values[k] = static_cast<M>(s[k]);
            std::memcpy(p, values, sizeof values);
          } else if (run) {
            for (int k = 0; k < kWarp; ++k) {
              M value = static_cast<M>(s[k]);
              std::memcpy(p + static_cast<u64>(k) * bytes + v * sizeof(M), &value, sizeof value);
            }
          } else {
            for (int k = 0; k < kWarp; ++k) {
              M value = static_cast<M>(s[k]);
              std::memcpy(host_of(w, o.at[k], base + k) + v * sizeof(M), &value, sizeof value);
            }
          }
        }
        continue;
      }
    }
    for (u32 rest = mask; rest; rest &= rest - 1) {
      int k = std::countr_zero(rest);
      if (!admit(m, o.at[k], base + k, bytes)) return false;
      char* p = host_of(*m.window, o.at[k], base + k);
      for (int v = 0; v < m.count; ++v) {
        M value = static_cast<M>(reinterpret_cast<const R*>(m.regs[v])[base + k]);
        std::memcpy(p + v * sizeof(M), &value, sizeof value);
      }
    }
  }
  return true;
}

// By the type in memory (signed ones extend) and the size of the register.
const MemoryEntry entries[] = {
    {"ld.u8.2", load<u16, u8>},    {"ld.u8.4", load<u32, u8>},    {"ld.u8.8", load<u64, u8>},
    {"ld.s8.2", load<u16, s8>},    {"ld.s8.4", load<u32, s8>},    {"ld.s8.8", load<u64, s8>},
    {"ld.u16.2", load<u16, u16>},  {"ld.u16.4", load<u32, u16>},  {"ld.u16.8", load<u64, u16>},
    {"ld.s16.2", load<u16, u16>},  {"ld.s16.4", load<u32, s16>},  {"ld.s16.8", load<u64, s16>},
    {"ld.u32.4", load<u32, u32>},  {"ld.u32.8", load<u64, u32>},  {"ld.s32.4", load<u32, u32>},
    {"ld.s32.8", load<u64, s32>},  {"ld.u64.8", load<u64, u64>},  {"ld.s64.8", load<u64, u64>},
    {"st.8.2", store<u8, u16>},    {"st.8.4", store<u8, u32>},    {"st.8.8", store<u8, u64>},
    {"st.16.2", store<u16, u16>},  {"st.16.4", store<u16, u32>},  {"st.16.8", store<u16, u64>},
    {"st.32.4", store<u32, u32>},  {"st.32.8", store<u32, u64>},  {"st.64.8", store<u64, u64>},
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
