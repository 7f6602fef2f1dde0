// Reserving address windows: PROT_NONE mappings at places that neither side uses.
// SPDX-License-Identifier: Apache-2.0
#include "client/windows.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <mutex>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

namespace outboard::client {
namespace {

// ThreadSanitizer keeps most of the address space for itself and leaves 0x10_0000_0000 –
// 0x80_0000_0000. It is found by its symbol, since the program may be built with it while this
// library is not.
extern "C" [[gnu::weak]] void __tsan_init();

constexpr uint64_t default_base = 0x2000'0000'0000, default_bytes = 1ull << 40;
constexpr uint64_t sanitizer_base = 0x10'0000'0000, sanitizer_bytes = 64ull << 30;
constexpr int attempts = 64;
constexpr uint64_t page_bytes = 4096;

uint64_t next_base = 0;

// Two regions after the devices' windows, for at most 16 devices. What kernels are given is
// searched for addresses of host memory: those begin where no small numbers side by side look like
// one, as 64 and 256 do like 0x4000'0000'0100.
struct Span {
  uint64_t begin, end;
  uint64_t first;  ///< place
};
constexpr Span regions[] = {{0x3000'0000'0000, 0x4000'0000'0000, 0x3000'0000'0000},
                            {0x4000'0000'0000, 0x5000'0000'0000, 0x46d5'b3a0'0000}};
constexpr Span sanitizer_regions[] = {{0x60'0000'0000, 0x70'0000'0000, 0x60'0000'0000},
                                      {0x70'0000'0000, 0x80'0000'0000, 0x76'b3a0'0000}};
constinit std::mutex regions_mutex;
uint64_t next_place[2] = {};

Span span_of(Region region) {
  return (&__tsan_init != nullptr ? sanitizer_regions : regions)[static_cast<uint32_t>(region)];
}

bool map_at(uint64_t base, uint64_t bytes) {
  void* wanted = reinterpret_cast<void*>(base);
  void* got = ::mmap(wanted, bytes, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (got == wanted) return true;
  if (got != MAP_FAILED) {  // a kernel older than 4.17 takes the address as a hint
    ::munmap(got, bytes);
    errno = EEXIST;
  }
  return false;
}

}  // namespace

bool reserve_window(Window* window) {
  const bool sanitized = &__tsan_init != nullptr;
  const uint64_t bytes = sanitized ? sanitizer_bytes : default_bytes;
  if (next_base == 0) next_base = sanitized ? sanitizer_base : default_base;
  for (int attempt = 0; attempt < attempts; ++attempt) {
    const uint64_t base = next_base;
    next_base += bytes;
    if (map_at(base, bytes)) {
      *window = {base, bytes};
      return true;
    }
    if (errno != EEXIST) return false;
  }
  return false;
}

Window region_window(Region region) {
  const Span span = span_of(region);
  return {span.begin, span.end - span.begin};
}

bool reserve_place(Region region, uint64_t bytes, uint64_t alignment, Window* window) {
  const auto index = static_cast<uint32_t>(region);
  const Span span = span_of(region);
  const uint64_t size = (bytes + page_bytes - 1) & ~(page_bytes - 1);
  if (size < bytes || size > span.end - span.begin) return false;
  const std::lock_guard guard(regions_mutex);
  uint64_t& next = next_place[index];
  if (next == 0) next = span.first;
  bool wrapped = false;
  // Past what is taken in steps of its own size: at worst the region is walked once.
  for (;;) {
    const uint64_t base = (next + alignment - 1) & ~(alignment - 1);
    if (base > span.end - size) {
      if (wrapped) return false;
      wrapped = true;
      next = span.begin;
      continue;
    }
    next = base + size;
    if (map_at(base, size)) {
      *window = {base, size};
      return true;
    }
    if (errno != EEXIST) return false;
  }
}

void release_window(const Window& window) {
  ::munmap(reinterpret_cast<void*>(window.base), window.bytes);
}

bool reserve_exactly(uint64_t base, uint64_t bytes) { return map_at(base, bytes); }

}  // namespace outboard::client
