// Context-local storage: what is put is found, by any thread, whatever else changes meanwhile.
// SPDX-License-Identifier: Apache-2.0
#include "context_storage.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <thread>
#include <vector>

using outboard::tables::ContextStorage;

namespace {

CUcontext context_of(uintptr_t number) { return reinterpret_cast<CUcontext>(number * 4096); }
void* pointer_of(uintptr_t number) { return reinterpret_cast<void*>(number * 16); }

std::vector<void*> destroyed;  // the values that destructors were given

}  // namespace

TEST_CASE("a value is found by its context and key alone") {
  ContextStorage storage;
  void* value = nullptr;
  CHECK_FALSE(storage.find(context_of(1), pointer_of(1), &value));
  storage.put(context_of(1), pointer_of(1), pointer_of(7), nullptr);
  REQUIRE(storage.find(context_of(1), pointer_of(1), &value));
  CHECK(value == pointer_of(7));
  CHECK_FALSE(storage.find(context_of(2), pointer_of(1), &value));
  CHECK_FALSE(storage.find(context_of(1), pointer_of(2), &value));
  storage.put(context_of(1), pointer_of(1), nullptr, nullptr);
  REQUIRE(storage.find(context_of(1), pointer_of(1), &value));
  CHECK(value == nullptr);
  CHECK(storage.remove(context_of(1), pointer_of(1)));
  CHECK_FALSE(storage.remove(context_of(1), pointer_of(1)));
  CHECK_FALSE(storage.find(context_of(1), pointer_of(1), &value));
}

TEST_CASE("thousands of entries that come and go leave the rest findable") {
  ContextStorage storage;
  constexpr uintptr_t kKept = 300;
  for (uintptr_t i = 1; i <= kKept; ++i) {
    storage.put(context_of(i), pointer_of(i), pointer_of(i + 1), nullptr);
  }
  for (uintptr_t i = 1; i <= 20000; ++i) {
    storage.put(context_of(i + 1000), pointer_of(i), pointer_of(i), nullptr);
    CHECK(storage.remove(context_of(i + 1000), pointer_of(i)));
  }
  for (uintptr_t i = 1; i <= kKept; ++i) {
    void* value = nullptr;
    REQUIRE(storage.find(context_of(i), pointer_of(i), &value));
    CHECK(value == pointer_of(i + 1));
  }
}

TEST_CASE("a destroyed context's destructors run once, and may use the storage") {
  static ContextStorage storage;
  destroyed.clear();
  const auto destructor = [](CUcontext context, void* key, void* value) {
    void* unused = nullptr;
    CHECK_FALSE(storage.find(context, key, &unused));
    destroyed.push_back(value);
  };
  storage.put(context_of(1), pointer_of(1), pointer_of(11), destructor);
  storage.put(context_of(1), pointer_of(2), pointer_of(12), nullptr);
  storage.put(context_of(2), pointer_of(1), pointer_of(21), destructor);
  storage.context_destroyed(context_of(1));
  storage.context_destroyed(context_of(1));
  CHECK(destroyed == std::vector<void*>{pointer_of(11)});
  void* value = nullptr;
  CHECK_FALSE(storage.find(context_of(1), pointer_of(2), &value));
  CHECK(storage.find(context_of(2), pointer_of(1), &value));
}

TEST_CASE("readers never miss nor confuse a value while others are written") {
  ContextStorage storage;
  storage.put(context_of(1), pointer_of(1), pointer_of(5), nullptr);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      while (!stop.load()) {
        void* value = nullptr;
        if (!storage.find(context_of(1), pointer_of(1), &value) || value != pointer_of(5)) ++wrong;
        // Every writer stores the context's own number, so a mixture would show.
        for (uintptr_t context = 2; context < 6; ++context) {
          if (storage.find(context_of(context), pointer_of(1), &value) &&
              value != pointer_of(context)) {
            ++wrong;
          }
        }
      }
    });
  }
  for (uintptr_t i = 0; i < 50000; ++i) {
    const uintptr_t context = 2 + i % 4;
    storage.put(context_of(context), pointer_of(1), pointer_of(context), nullptr);
    storage.put(context_of(1), pointer_of(1), pointer_of(5), nullptr);
    storage.put(context_of(i + 10), pointer_of(2), pointer_of(3), nullptr);
    storage.remove(context_of(context), pointer_of(1));
    storage.remove(context_of(i + 10), pointer_of(2));
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  CHECK(wrong == 0);
}
