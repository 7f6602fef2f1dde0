// What changed in memory of which both sides keep a copy: blocks, each with a mask of its bytes.
// SPDX-License-Identifier: Apache-2.0
//
// A record is u64 offset (a multiple of 64), u64 mask (bit i: byte i changed), 64 bytes. Bytes that
// did not change are left alone on the other side, where they may have changed meanwhile: two sides
// that write different bytes of one block both keep what they wrote.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace outboard::wire {

inline constexpr size_t change_block_bytes = 64;
inline constexpr size_t change_record_bytes = 16 + change_block_bytes;
/// Few enough that nobody waits long for one look.
inline constexpr size_t max_look_bytes = 64u << 20;
/// So many records make half a frame.
inline constexpr size_t max_changes = (512u << 10) / change_record_bytes;

/// Looks at `memory` from `offset` (a multiple of 64) on for bytes that are not as in `known`,
/// which is as long and then is as `memory` was. Appends at most max_changes records and looks at
/// no more than max_look_bytes; returns where to go on, or memory.size(). Others may write to
/// `memory` meanwhile.
inline uint64_t find_changes(std::span<const std::byte> memory, std::byte* known, uint64_t offset,
                             std::vector<std::byte>* records) {
  constexpr size_t stride = 4096;
  size_t found = 0;
  const uint64_t end = std::min<uint64_t>(memory.size(), offset + max_look_bytes);
  while (offset < end) {
    const size_t ahead = std::min<size_t>(stride, memory.size() - offset);
    if (std::memcmp(memory.data() + offset, known + offset, ahead) == 0) {
      offset += ahead;
      continue;
    }
    for (const uint64_t last = offset + ahead; offset < last; offset += change_block_bytes) {
      if (found == max_changes) return offset;
      const size_t bytes = std::min<size_t>(change_block_bytes, memory.size() - offset);
      std::byte now[change_block_bytes] = {};
      std::memcpy(now, memory.data() + offset, bytes);
      uint64_t mask = 0;
      for (size_t i = 0; i < bytes; ++i) {
        mask |= uint64_t{now[i] != known[offset + i]} << i;
      }
      if (mask == 0) continue;
      std::memcpy(known + offset, now, bytes);
      const size_t at = records->size();
      records->resize(at + change_record_bytes);
      std::memcpy(records->data() + at, &offset, sizeof offset);
      std::memcpy(records->data() + at + 8, &mask, sizeof mask);
      std::memcpy(records->data() + at + 16, now, sizeof now);
      ++found;
    }
    offset = std::min<uint64_t>(offset, memory.size());
  }
  return offset;
}

/// Puts what find_changes found into `memory` and into `known`. False where the records are none.
inline bool apply_changes(std::span<const std::byte> records, std::span<std::byte> memory,
                          std::byte* known) {
  if (records.size() % change_record_bytes != 0) return false;
  for (; !records.empty(); records = records.subspan(change_record_bytes)) {
    uint64_t offset = 0, mask = 0;
    std::memcpy(&offset, records.data(), sizeof offset);
    std::memcpy(&mask, records.data() + 8, sizeof mask);
    if (offset % change_block_bytes != 0 || offset >= memory.size()) return false;
    const size_t bytes = std::min<size_t>(change_block_bytes, memory.size() - offset);
    for (size_t i = 0; i < bytes; ++i) {
      if ((mask >> i & 1) == 0) continue;
      memory[offset + i] = records[16 + i];
      known[offset + i] = records[16 + i];
    }
  }
  return true;
}

}  // namespace outboard::wire
