// Tables of what the client has named: index and generation to object, bounded, grown in steps.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "wire/frame.hpp"

namespace outboard::worker {

inline uint32_t index_of(uint64_t id) { return static_cast<uint32_t>(id); }
inline uint32_t generation_of(uint64_t id) { return static_cast<uint32_t>(id >> 32); }

/// What a create on a table comes to; anything but `ok` breaks the protocol.
enum class Insert { ok, beyond_bound, living, stale_generation };

template <typename T>
class ObjectTable {
 public:
  /// Null where the id is 0, beyond the table, dead, or of another generation.
  T* find(uint64_t id) const {
    const Slot* slot = living(id);
    return slot ? slot->object.get() : nullptr;
  }
  std::shared_ptr<T> share(uint64_t id) const {
    const Slot* slot = living(id);
    return slot ? slot->object : nullptr;
  }
  /// The object that lives at an index now, of whatever generation.
  T* at(uint32_t index) const {
    return index < slots_.size() ? slots_[index].object.get() : nullptr;
  }
  /// Whether `id` may be created now; checked before the driver is asked for the object.
  Insert may_insert(uint64_t id) const {
    const uint32_t index = index_of(id);
    const uint32_t generation = generation_of(id);
    if (index >= wire::max_objects || generation == 0) return Insert::beyond_bound;
    if (index >= slots_.size()) return Insert::ok;
    if (slots_[index].object) return Insert::living;
    return generation > slots_[index].generation ? Insert::ok : Insert::stale_generation;
  }
  Insert insert(uint64_t id, std::shared_ptr<T> object) {
    if (const Insert verdict = may_insert(id); verdict != Insert::ok) return verdict;
    const uint32_t index = index_of(id);
    if (index >= slots_.size()) slots_.resize((size_t{index} / grow_step + 1) * grow_step);
    slots_[index] = {std::move(object), generation_of(id)};
    ++living_;
    return Insert::ok;
  }
  /// Takes the object out of the table; null where there is none.
  std::shared_ptr<T> remove(uint64_t id) {
    Slot* slot = const_cast<Slot*>(living(id));
    if (!slot) return nullptr;
    --living_;
    return std::move(slot->object);
  }
  /// Takes out every object for which `condition(object)` is true.
  template <typename Condition>
  void remove_where(Condition condition) {
    for (Slot& slot : slots_) {
      if (!slot.object || !condition(*slot.object)) continue;
      slot.object.reset();
      --living_;
    }
  }
  template <typename Visit>
  void each(Visit visit) const {
    for (const Slot& slot : slots_) {
      if (slot.object) visit(*slot.object);
    }
  }
  /// As each, with the object's id.
  template <typename Visit>
  void each_named(Visit visit) const {
    for (size_t index = 0; index < slots_.size(); ++index) {
      const Slot& slot = slots_[index];
      if (slot.object) visit(uint64_t{slot.generation} << 32 | index, *slot.object);
    }
  }
  size_t living() const { return living_; }

 private:
  static constexpr size_t grow_step = 1024;

  struct Slot {
    std::shared_ptr<T> object;
    uint32_t generation = 0;
  };
  const Slot* living(uint64_t id) const {
    const uint32_t index = index_of(id);
    if (index >= slots_.size()) return nullptr;
    const Slot& slot = slots_[index];
    return slot.object && slot.generation == generation_of(id) ? &slot : nullptr;
  }

  std::vector<Slot> slots_;
  size_t living_ = 0;
};

}  // namespace outboard::worker
