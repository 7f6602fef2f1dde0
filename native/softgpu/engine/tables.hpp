// The handler tables of one CPU level.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "handlers.hpp"

#define SOFTGPU_TABLES(isa)                      \
  namespace softgpu::simt::isa {                 \
  std::span<const AluEntry> integer_entries();   \
  std::span<const AluEntry> bits_entries();      \
  std::span<const AluEntry> float_entries();     \
  std::span<const AluEntry> half_entries();      \
  std::span<const AluEntry> compare_entries();   \
  std::span<const AluEntry> convert_entries();   \
  std::span<const MemoryEntry> memory_entries(); \
  std::span<const MemoryEntry> atomic_entries(); \
  BlendFn blend_of(unsigned bytes);              \
  }

SOFTGPU_TABLES(v3)
SOFTGPU_TABLES(baseline)
