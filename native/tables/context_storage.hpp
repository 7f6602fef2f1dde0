// What CUDA's libraries keep per context: (context, key) -> value, read without a lock.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace outboard::tables {

// Every runtime call of a static libcudart looks its context up here, so find() takes no lock and
// writes nothing: a few loads of lines that all cores share. Changes are rare (a library's first
// use of a context, the context's end) and take a mutex.
class ContextStorage {
 public:
  using Destructor = void (*)(CUcontext context, void* key, void* value);

  bool find(CUcontext context, void* key, void** value) const;
  // Replaces the value if the key is there already.
  void put(CUcontext context, void* key, void* value, Destructor destructor);
  // False if there was none. Does not run the destructor: its caller is the one who owns the value.
  bool remove(CUcontext context, void* key);
  // Removes what is stored for the context, then runs the destructors, without a lock held, so that
  // they may call the driver.
  void context_destroyed(CUcontext context);

  // For pthread_atfork: the mutex must not be held by another thread when the process forks.
  void lock_for_fork() { mutex_.lock(); }
  void unlock_after_fork() { mutex_.unlock(); }

 private:
  // A slot's fields change only while `changes` is odd; a reader that saw another number before
  // than after reads again. A context of null is an empty slot and ends a search.
  struct Slot {
    std::atomic<uint32_t> changes{0};
    std::atomic<CUcontext> context{nullptr};
    std::atomic<void*> key{nullptr};
    std::atomic<void*> value{nullptr};
    Destructor destructor = nullptr;  // guarded by the mutex
  };
  struct Table {
    explicit Table(size_t capacity) : slots(capacity) {}
    std::vector<Slot> slots;  // a power of two of them
    // Raised whenever the table is filled anew: a search that found nothing while that happened
    // proves nothing.
    std::atomic<uint32_t> fillings{0};
    size_t used = 0;  // live and dead slots; guarded by the mutex
    size_t live = 0;
  };

  static size_t home(const Table& table, CUcontext context, void* key);
  static void write(Slot& slot, CUcontext context, void* key, void* value, Destructor destructor);
  static Slot* locate(Table& table, CUcontext context, void* key);
  static void insert(Table& table, CUcontext context, void* key, void* value,
                     Destructor destructor);
  static void bury(Table& table, Slot& slot);
  Table& table_with_room();

  std::mutex mutex_;
  std::atomic<Table*> current_{nullptr};
  // Readers may still be in a table that was replaced, so none is freed. One of the current size is
  // used again, so only growth adds to them.
  std::vector<std::unique_ptr<Table>> tables_;
};

}  // namespace outboard::tables
