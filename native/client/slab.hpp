// Objects that a program holds by pointer: slots that never move, numbered for the wire, checked by
// range and mark. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#include "client/futex.hpp"
#include "wire/frame.hpp"

namespace outboard::client {

enum SlotState : uint32_t { slot_free = 0, slot_live = 1, slot_dormant = 2 };

/// What every slot has. `id()` names it on the wire: generation << 32 | index.
struct SlotHead {
  std::atomic<uint32_t> live{slot_free};
  uint32_t index = 0;
  uint32_t generation = 0;
  uint32_t next_free = 0;

  uint64_t id() const { return uint64_t{generation} << 32 | index; }
};

/// Slots of T (which begins with a public member `SlotHead head`), at most `capacity` of them, in
/// memory that is reserved at once and backed as it is used. Index 0 is not used.
/// Constant-initialised and never destroyed, since programs call us from their exit handlers.
template <typename T, uint32_t capacity>
class Slab {
  static_assert(capacity <= wire::max_objects);

 public:
  constexpr Slab() = default;

  /// A fresh object, or null where there is no room.
  T* take() {
    lock_.lock();
    T* slot = take_locked();
    lock_.unlock();
    return slot;
  }

  /// Ends an object; the pointer is refused by find() until its slot is used again.
  void give(T* slot) {
    lock_.lock();
    slot->head.live.store(slot_free, std::memory_order_release);
    slot->head.next_free = free_;
    free_ = slot->head.index;
    lock_.unlock();
  }

  /// The live object behind a program's handle, else null. Safe for any pointer.
  T* find(const void* handle) const {
    const auto* base = base_.load(std::memory_order_acquire);
    const auto offset = static_cast<size_t>(static_cast<const std::byte*>(handle) - base);
    if (base == nullptr || offset >= size_t{used_.load(std::memory_order_acquire)} * sizeof(T) ||
        offset % sizeof(T) != 0) {
      return nullptr;
    }
    T* slot = const_cast<T*>(reinterpret_cast<const T*>(base + offset));
    return slot->head.live.load(std::memory_order_acquire) == slot_live ? slot : nullptr;
  }

  /// The object behind a handle although it is dormant: it exists here, but not on the server.
  T* find_dormant(const void* handle) const {
    if (!owns(handle)) return nullptr;
    const auto offset = static_cast<size_t>(static_cast<const std::byte*>(handle) - base_.load());
    if (offset % sizeof(T) != 0 || offset / sizeof(T) >= used_.load()) return nullptr;
    T* slot = at(static_cast<uint32_t>(offset / sizeof(T)));
    return slot->head.live.load(std::memory_order_acquire) == slot_dormant ? slot : nullptr;
  }
  static void make_dormant(T* slot) { slot->head.live.store(slot_dormant); }
  /// A dormant object gets a new name for the server; wake() makes it live.
  static void rename(T* slot) { ++slot->head.generation; }
  static void wake(T* slot) { slot->head.live.store(slot_live, std::memory_order_release); }

  /// The live object that an id names, else null.
  T* find_id(uint64_t id) const {
    const auto index = static_cast<uint32_t>(id);
    if (index == 0 || index >= used_.load(std::memory_order_acquire)) return nullptr;
    T* slot = at(index);
    return slot->head.live.load(std::memory_order_acquire) == slot_live && slot->head.id() == id
               ? slot
               : nullptr;
  }

  /// True if `handle` points into this slab at all, live or not.
  bool owns(const void* handle) const {
    const auto* base = base_.load(std::memory_order_acquire);
    return base != nullptr && handle >= base && handle < base + bytes;
  }

  template <typename Visit>
  void for_each(Visit&& visit) {
    const uint32_t used = used_.load(std::memory_order_acquire);
    for (uint32_t index = 1; index < used; ++index) {
      T* slot = at(index);
      if (slot->head.live.load(std::memory_order_acquire) == slot_live) visit(slot);
    }
  }

 private:
  static constexpr size_t bytes = size_t{capacity} * sizeof(T);

  T* at(uint32_t index) const {
    return reinterpret_cast<T*>(base_.load(std::memory_order_relaxed) + size_t{index} * sizeof(T));
  }

  T* take_locked() {
    if (base_.load(std::memory_order_relaxed) == nullptr) {
      void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED) return nullptr;
      base_.store(static_cast<std::byte*>(memory), std::memory_order_release);
      used_.store(1, std::memory_order_release);
    }
    uint32_t index = free_;
    uint32_t generation = 1;
    if (index != 0) {
      T* old = at(index);
      free_ = old->head.next_free;
      generation = old->head.generation + 1;
      old->~T();
    } else {
      index = used_.load(std::memory_order_relaxed);
      if (index >= capacity) return nullptr;
    }
    T* slot = new (at(index)) T();
    slot->head.index = index;
    slot->head.generation = generation;
    slot->head.live.store(slot_live, std::memory_order_release);
    if (index >= used_.load(std::memory_order_relaxed)) {
      used_.store(index + 1, std::memory_order_release);
    }
    return slot;
  }

  std::atomic<std::byte*> base_{nullptr};
  std::atomic<uint32_t> used_{0};
  uint32_t free_ = 0;
  SpinLock lock_;
};

}  // namespace outboard::client
