// Context-local storage: an open-addressed hash table with lock-free readers.
// SPDX-License-Identifier: Apache-2.0
#include "context_storage.hpp"

#include <utility>

namespace outboard::tables {
namespace {

constexpr size_t kFirstCapacity = 64;

// Marks a slot whose entry was removed: a search goes on past it.
CUcontext dead_context() {
  static char mark;
  return reinterpret_cast<CUcontext>(&mark);
}

}  // namespace

size_t ContextStorage::home(const Table& table, CUcontext context, void* key) {
  const uint64_t mixed = (reinterpret_cast<uintptr_t>(context) * 0x9E3779B97F4A7C15) ^
                         (reinterpret_cast<uintptr_t>(key) * 0xC2B2AE3D27D4EB4F);
  return (mixed >> 32) & (table.slots.size() - 1);
}

bool ContextStorage::find(CUcontext context, void* key, void** value) const {
  for (;;) {
    const Table* table = current_.load(std::memory_order_acquire);
    if (table == nullptr) return false;
    const uint32_t fillings = table->fillings.load(std::memory_order_acquire);
    const size_t mask = table->slots.size() - 1;
    bool changed = false;
    for (size_t i = home(*table, context, key);; i = (i + 1) & mask) {
      const Slot& slot = table->slots[i];
      const uint32_t before = slot.changes.load(std::memory_order_acquire);
      if (before % 2 != 0) continue;  // half written: its put or remove has not happened yet
      const CUcontext found = slot.context.load(std::memory_order_acquire);
      if (found == nullptr) break;
      if (found != context || slot.key.load(std::memory_order_acquire) != key) continue;
      void* stored = slot.value.load(std::memory_order_acquire);
      changed = slot.changes.load(std::memory_order_relaxed) != before;
      if (changed) break;
      *value = stored;
      return true;
    }
    if (!changed && current_.load(std::memory_order_acquire) == table &&
        table->fillings.load(std::memory_order_acquire) == fillings) {
      return false;
    }
  }
}

// Release stores, so that whoever sees a new field also sees that `changes` was odd before it.
void ContextStorage::write(Slot& slot, CUcontext context, void* key, void* value,
                           Destructor destructor) {
  const uint32_t changes = slot.changes.load(std::memory_order_relaxed);
  slot.changes.store(changes + 1, std::memory_order_relaxed);
  slot.context.store(context, std::memory_order_release);
  slot.key.store(key, std::memory_order_release);
  slot.value.store(value, std::memory_order_release);
  slot.destructor = destructor;
  slot.changes.store(changes + 2, std::memory_order_release);
}

ContextStorage::Slot* ContextStorage::locate(Table& table, CUcontext context, void* key) {
  const size_t mask = table.slots.size() - 1;
  for (size_t i = home(table, context, key);; i = (i + 1) & mask) {
    Slot& slot = table.slots[i];
    const CUcontext found = slot.context.load(std::memory_order_relaxed);
    if (found == nullptr) return nullptr;
    if (found == context && slot.key.load(std::memory_order_relaxed) == key) return &slot;
  }
}

void ContextStorage::insert(Table& table, CUcontext context, void* key, void* value,
                            Destructor destructor) {
  const size_t mask = table.slots.size() - 1;
  size_t i = home(table, context, key);
  for (;; i = (i + 1) & mask) {
    const CUcontext found = table.slots[i].context.load(std::memory_order_relaxed);
    if (found == nullptr) ++table.used;
    if (found == nullptr || found == dead_context()) break;
  }
  ++table.live;
  write(table.slots[i], context, key, value, destructor);
}

void ContextStorage::bury(Table& table, Slot& slot) {
  write(slot, dead_context(), nullptr, nullptr, nullptr);
  --table.live;
}

// A table that always keeps a quarter of its slots empty, so that searches end. Called with the
// mutex held.
ContextStorage::Table& ContextStorage::table_with_room() {
  Table* table = current_.load(std::memory_order_relaxed);
  if (table != nullptr && table->used < table->slots.size() / 4 * 3) return *table;

  size_t capacity = table == nullptr ? kFirstCapacity : table->slots.size();
  if (table != nullptr && table->live > capacity / 2) capacity *= 2;
  Table* fresh = nullptr;
  for (const auto& candidate : tables_) {
    if (candidate.get() != table && candidate->slots.size() == capacity) fresh = candidate.get();
  }
  if (fresh == nullptr) {
    fresh = tables_.emplace_back(std::make_unique<Table>(capacity)).get();
  }
  fresh->fillings.fetch_add(1, std::memory_order_acq_rel);
  for (Slot& slot : fresh->slots) write(slot, nullptr, nullptr, nullptr, nullptr);
  fresh->used = 0;
  fresh->live = 0;
  if (table != nullptr) {
    for (const Slot& slot : table->slots) {
      const CUcontext context = slot.context.load(std::memory_order_relaxed);
      if (context == nullptr || context == dead_context()) continue;
      insert(*fresh, context, slot.key.load(std::memory_order_relaxed),
             slot.value.load(std::memory_order_relaxed), slot.destructor);
    }
  }
  current_.store(fresh, std::memory_order_release);
  return *fresh;
}

void ContextStorage::put(CUcontext context, void* key, void* value, Destructor destructor) {
  const std::lock_guard lock(mutex_);
  Table& table = table_with_room();
  Slot* slot = locate(table, context, key);
  if (slot != nullptr) {
    // Not write(): a reader must not miss a key that is there before and after.
    slot->value.store(value, std::memory_order_release);
    slot->destructor = destructor;
  } else {
    insert(table, context, key, value, destructor);
  }
}

bool ContextStorage::remove(CUcontext context, void* key) {
  const std::lock_guard lock(mutex_);
  Table* table = current_.load(std::memory_order_relaxed);
  Slot* slot = table == nullptr ? nullptr : locate(*table, context, key);
  if (slot == nullptr) return false;
  bury(*table, *slot);
  return true;
}

void ContextStorage::context_destroyed(CUcontext context) {
  struct Entry {
    void* key;
    void* value;
    Destructor destructor;
  };
  std::vector<Entry> entries;
  {
    const std::lock_guard lock(mutex_);
    Table* table = current_.load(std::memory_order_relaxed);
    if (table == nullptr) return;
    for (Slot& slot : table->slots) {
      if (slot.context.load(std::memory_order_relaxed) != context) continue;
      entries.push_back({slot.key.load(std::memory_order_relaxed),
                         slot.value.load(std::memory_order_relaxed), slot.destructor});
      bury(*table, slot);
    }
  }
  for (const Entry& entry : entries) {
    if (entry.destructor != nullptr) entry.destructor(context, entry.key, entry.value);
  }
}

}  // namespace outboard::tables
