// What lies in the slots of a private table that nobody was seen to call.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <utility>

namespace outboard::tables {

// Says on stderr, the first time, that a slot was called which has no implementation.
CUresult report_unserved(const char* table, size_t slot, std::atomic<bool>& reported);

// One function per slot, so that the message can name it. Whatever arguments it is called with are
// left alone: on every ABI that CUDA runs on, the caller removes them.
template <const char* const& kTable, size_t kSlot>
CUresult unserved() {
  static std::atomic<bool> reported{false};
  return report_unserved(kTable, kSlot, reported);
}

using Slot = void*;

template <const char* const& kTable, size_t... kSlots>
std::array<Slot, sizeof...(kSlots)> unserved_slots(std::index_sequence<kSlots...>) {
  return {reinterpret_cast<Slot>(&unserved<kTable, kSlots>)...};
}

// A table whose every slot fails loudly: callers jump through slots without looking, so none may be
// null.
template <const char* const& kTable, size_t kCount>
std::array<Slot, kCount> unserved_table() {
  return unserved_slots<kTable>(std::make_index_sequence<kCount>());
}

}  // namespace outboard::tables
