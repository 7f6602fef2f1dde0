// Delayed removal of pages from under running kernels.
// SPDX-License-Identifier: Apache-2.0
#include "activity.hpp"

#include <sys/mman.h>

#include <mutex>
#include <vector>

namespace softgpu {
namespace {

struct Pending {
  uint64_t base;
  uint64_t bytes;
  bool discard;  // munmap it, rather than put PROT_NONE pages there
};

struct State {
  std::mutex mutex;
  int running = 0;
  std::vector<Pending> pending;
};

State& state() {
  static State& value = *new State;
  return value;
}

void put_nothing(const Pending& range) {
  if (range.discard) {
    munmap(reinterpret_cast<void*>(range.base), range.bytes);
    return;
  }
  mmap(reinterpret_cast<void*>(range.base), range.bytes, PROT_NONE,
       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

}  // namespace

Activity::Scope::Scope() {
  std::lock_guard lock(state().mutex);
  ++state().running;
}

Activity::Scope::~Scope() {
  std::lock_guard lock(state().mutex);
  if (--state().running > 0) return;
  for (const Pending& range : state().pending) put_nothing(range);
  state().pending.clear();
}

void Activity::conceal(uint64_t base, uint64_t bytes) {
  std::lock_guard lock(state().mutex);
  if (state().running == 0) {
    put_nothing({base, bytes, false});
  } else {
    state().pending.push_back({base, bytes, false});
  }
}

void Activity::discard(uint64_t base, uint64_t bytes) {
  std::lock_guard lock(state().mutex);
  if (state().running == 0) {
    put_nothing({base, bytes, true});
  } else {
    state().pending.push_back({base, bytes, true});  // after any conceal of the same range
  }
}

int Activity::remap(uint64_t base, uint64_t bytes, const std::function<int()>& map) {
  std::lock_guard lock(state().mutex);
  std::vector<Pending> kept;
  uint64_t end = base + bytes;
  for (const Pending& range : state().pending) {
    uint64_t range_end = range.base + range.bytes;
    if (range_end <= base || range.base >= end) {
      kept.push_back(range);
      continue;
    }
    if (range.base < base) kept.push_back({range.base, base - range.base, range.discard});
    if (range_end > end) kept.push_back({end, range_end - end, range.discard});
  }
  state().pending = std::move(kept);
  return map();
}

}  // namespace softgpu
