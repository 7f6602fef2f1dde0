// Chooses the handlers of this CPU and finds them by name.
// SPDX-License-Identifier: Apache-2.0
#include "handlers.hpp"

#include <cstdlib>
#include <unordered_map>

#include "tables.hpp"

namespace softgpu::simt {
namespace {

struct Tables {
  std::unordered_map<std::string_view, AluEntry> alu;
  std::unordered_map<std::string_view, MemoryFn> memory;
  BlendFn blend[4] = {};
  std::string_view isa;

  void add(std::span<const AluEntry> entries) {
    for (const AluEntry& e : entries) alu.emplace(e.key, e);
  }
  void add(std::span<const MemoryEntry> entries) {
    for (const MemoryEntry& e : entries) memory.emplace(e.key, e.fn);
  }
};

#define SOFTGPU_FILL(level)        \
  t.add(level::integer_entries()); \
  t.add(level::bits_entries());    \
  t.add(level::float_entries());   \
  t.add(level::half_entries());    \
  t.add(level::compare_entries()); \
  t.add(level::convert_entries()); \
  t.add(level::memory_entries());  \
  t.add(level::atomic_entries());  \
  for (unsigned k = 0; k < 4; ++k) t.blend[k] = level::blend_of(1u << k);

Tables make_tables() {
  Tables t;
#ifdef SOFTGPU_HAVE_V3
  // SOFTGPU_ISA=baseline makes results of both levels comparable on one machine.
  const char* wanted = std::getenv("SOFTGPU_ISA");
  bool allowed = !wanted || std::string_view(wanted) != "baseline";
  if (allowed && __builtin_cpu_supports("x86-64-v3")) {
    t.isa = "x86-64-v3";
    SOFTGPU_FILL(v3)
    return t;
  }
#endif
  t.isa = "baseline";
  SOFTGPU_FILL(baseline)
  return t;
}

const Tables& tables() {
  static const Tables t = make_tables();
  return t;
}

}  // namespace

const AluEntry* find_alu(std::string_view key) {
  auto it = tables().alu.find(key);
  return it == tables().alu.end() ? nullptr : &it->second;
}

MemoryFn find_memory(std::string_view key) {
  auto it = tables().memory.find(key);
  return it == tables().memory.end() ? nullptr : it->second;
}

BlendFn find_blend(unsigned bytes) {
  return tables().blend[bytes == 1 ? 0 : bytes == 2 ? 1 : bytes == 4 ? 2 : 3];
}

std::string_view handler_isa() { return tables().isa; }

}  // namespace softgpu::simt
