// Tables from the opaque handles that programs hold to the objects behind them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <type_traits>
#include <utility>
#include <vector>

namespace softgpu {

/// A handle is never an address: its top byte makes it non-canonical, so that a program that looks
/// into one crashes there instead of reading something else. It holds the kind of object, a slot
/// and the slot's generation, so that a stale or made-up handle is recognised.
///   bits 56-62: 0x5a; 48-55: kind; 28-47: generation; 4-27: slot; 0-3: 8
template <class Object, class Handle, uint8_t kKind>
class HandleTable {
 public:
  Handle insert(std::shared_ptr<Object> object) {
    std::unique_lock lock(mutex_);
    uint32_t index;
    if (free_.size() > kReuseDistance) {
      index = free_.front();
      free_.pop_front();
    } else {
      index = static_cast<uint32_t>(slots_.size());
      slots_.emplace_back();
    }
    slots_[index].object = std::move(object);
    return encode(index, slots_[index].generation);
  }

  std::shared_ptr<Object> find(Handle handle) const {
    uint64_t bits = to_bits(handle);
    if (!mine(handle)) return nullptr;
    std::shared_lock lock(mutex_);
    uint32_t index = (bits >> 4) & kSlotMask;
    if (index >= slots_.size()) return nullptr;
    const Slot& slot = slots_[index];
    if (slot.generation != ((bits >> 28) & kGenerationMask)) return nullptr;
    return slot.object;
  }

  /// Takes the object out; the handle is stale from now on.
  std::shared_ptr<Object> erase(Handle handle) {
    uint64_t bits = to_bits(handle);
    if (!mine(handle)) return nullptr;
    std::unique_lock lock(mutex_);
    uint32_t index = (bits >> 4) & kSlotMask;
    if (index >= slots_.size()) return nullptr;
    Slot& slot = slots_[index];
    if (slot.generation != ((bits >> 28) & kGenerationMask) || !slot.object) return nullptr;
    return vacate(index);
  }

  /// Takes out every object of which `gone` is true.
  template <class Gone>
  void erase_if(Gone&& gone) {
    std::vector<std::shared_ptr<Object>> taken;  // they end when the lock is free again
    std::unique_lock lock(mutex_);
    for (uint32_t i = 0; i < slots_.size(); ++i) {
      if (slots_[i].object && gone(*slots_[i].object)) taken.push_back(vacate(i));
    }
    lock.unlock();
  }

  /// Whether the handle has the look of this table's.
  static bool mine(Handle handle) {
    uint64_t bits = to_bits(handle);
    return (bits >> 48) == ((0x5aull << 8) | kKind) && (bits & 15) == 8;
  }

 private:
  struct Slot {
    std::shared_ptr<Object> object;
    uint32_t generation = 1;
  };
  static constexpr uint32_t kSlotMask = (1u << 24) - 1;
  static constexpr uint32_t kGenerationMask = (1u << 20) - 1;
  static constexpr size_t kReuseDistance = 64;  // so that generations wrap late

  std::shared_ptr<Object> vacate(uint32_t index) {
    Slot& slot = slots_[index];
    slot.generation = (slot.generation + 1) & kGenerationMask;
    free_.push_back(index);
    return std::exchange(slot.object, nullptr);
  }

  static uint64_t to_bits(Handle handle) {
    if constexpr (std::is_pointer_v<Handle>) {
      return reinterpret_cast<uint64_t>(handle);
    } else {
      return static_cast<uint64_t>(handle);
    }
  }
  static Handle encode(uint64_t index, uint64_t generation) {
    uint64_t bits =
        (0x5aull << 56) | (uint64_t{kKind} << 48) | (generation << 28) | (index << 4) | 8;
    if constexpr (std::is_pointer_v<Handle>) {
      return reinterpret_cast<Handle>(bits);
    } else {
      return static_cast<Handle>(bits);
    }
  }

  mutable std::shared_mutex mutex_;
  std::vector<Slot> slots_;
  std::deque<uint32_t> free_;
};

}  // namespace softgpu
