// Carries out the operations of streams and graphs.
// SPDX-License-Identifier: Apache-2.0
#include "operation.hpp"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "activity.hpp"
#include "context.hpp"
#include "function.hpp"
#include "graph_exec.hpp"
#include "guard.hpp"
#include "printf_text.hpp"
#include "stream.hpp"

namespace softgpu {

thread_local bool in_host_function = false;

int64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1'000'000'000ll + t.tv_nsec;
}

void Record::complete() {
  time_ns.store(now_ns());
  if (shared) shared->complete(number);
  done.store(1);
  if (waiters.load() > 0) syscall(SYS_futex, &done, FUTEX_WAKE_PRIVATE, 1 << 30, nullptr, 0, 0);
}

// Another process may have to complete it, and nobody wakes us when it does.
void Record::wait_shared(const Context& context) const {
  const auto ends = [&] {
    return shared->abandoned() || (context.cancelled() && context.fault() != CUDA_SUCCESS);
  };
  long sleep_ns = 20'000;
  for (int i = 1; !shared->done(number); ++i) {
    if (i % 256 == 0 && ends()) return;
    timespec pause{0, sleep_ns};
    nanosleep(&pause, nullptr);
    sleep_ns = std::min(sleep_ns * 5 / 4, 200'000l);
  }
}

void Record::wait(const Context& context) {
  for (int i = 0; i < 50; ++i) {
    if (is_done()) return;
    if (i > 10) sched_yield();
  }
  if (shared) return wait_shared(context);
  waiters.fetch_add(1);
  // The time-out is for a context that is torn down meanwhile; complete() wakes at once.
  timespec limit{0, 50'000'000};
  while (done.load() == 0 && !(context.cancelled() && context.fault() != CUDA_SUCCESS)) {
    syscall(SYS_futex, &done, FUTEX_WAIT_PRIVATE, 0, &limit, 0, 0);
  }
  waiters.fetch_sub(1);
}

namespace {

/// Calls the program's function; CUDA calls are refused meanwhile.
template <class Call>
void as_host_function(Call&& call) {
  PrintfText::flush();  // as CUDA does before a callback
  in_host_function = true;
  call();
  in_host_function = false;
}

bool reachable(const Device* device, uint64_t base, size_t width, size_t height, size_t depth,
               size_t pitch, size_t slice) {
  if (device == nullptr || width == 0 || height == 0 || depth == 0) return true;
  return device->space.contains(base, (depth - 1) * slice + (height - 1) * pitch + width);
}

CUresult run(KernelOperation& op, Context& context) {
  op.launch.params = op.params.data();
  Outcome outcome = context.device.run(*op.function->kernel, op.launch, op.references);
  if (outcome.fault == Fault::none) return CUDA_SUCCESS;
  std::fprintf(stderr, "softgpu: %s\n", outcome.detail.c_str());
  return static_cast<CUresult>(outcome.fault);
}

/// Goes through `bytes` bytes of a row piece by piece: `piece(host, done, bytes)`, of which the
/// host address is null where there is no memory.
template <class Piece>
bool walk_row(const CopyOperation::TiledEnd& end, const Device* device, size_t y, size_t z,
              size_t bytes, Piece&& piece) {
  for (size_t done = 0; done < bytes;) {
    uint64_t run = 0;
    const uint64_t at = end.level->find(end.at[0] + done, end.at[1] + y, end.at[2] + z, &run);
    run = std::min<uint64_t>(run, bytes - done);
    if (at != 0 && !device->space.contains(at, run)) return false;
    piece(reinterpret_cast<std::byte*>(at), done, run);
    done += run;
  }
  return true;
}

/// A copy of which an end may have gaps: they read as zeros, and what is written there is lost.
CUresult run_tiled(CopyOperation& op) {
  std::vector<std::byte> row(op.width);
  for (size_t i = 0; i < op.depth * op.height; ++i) {
    const size_t z = i / op.height;
    const size_t y = i % op.height;
    const auto* from =
        reinterpret_cast<const std::byte*>(op.source + z * op.source_slice + y * op.source_pitch);
    auto* to = reinterpret_cast<std::byte*>(op.destination + z * op.destination_slice +
                                            y * op.destination_pitch);
    bool there = true;
    if (op.tiled_source.level) {
      from = row.data();
      there = walk_row(op.tiled_source, op.source_device, y, z, op.width,
                       [&](const std::byte* host, size_t done, size_t bytes) {
                         if (host != nullptr) std::memcpy(row.data() + done, host, bytes);
                         if (host == nullptr) std::memset(row.data() + done, 0, bytes);
                       });
    }
    if (there && op.tiled_destination.level) {
      there = walk_row(op.tiled_destination, op.destination_device, y, z, op.width,
                       [&](std::byte* host, size_t done, size_t bytes) {
                         if (host != nullptr) std::memmove(host, from + done, bytes);
                       });
    } else if (there) {
      std::memcpy(to, from, op.width);
    }
    if (!there) return CUDA_ERROR_ILLEGAL_ADDRESS;
  }
  return CUDA_SUCCESS;
}

CUresult run(CopyOperation& op, Context&) {
  Activity::Scope active;
  const bool tiled_to = op.tiled_destination.level != nullptr;
  const bool tiled_from = op.tiled_source.level != nullptr;
  if ((!tiled_to && !reachable(op.destination_device, op.destination, op.width, op.height, op.depth,
                               op.destination_pitch, op.destination_slice)) ||
      (!tiled_from && !reachable(op.source_device, op.source, op.width, op.height, op.depth,
                                 op.source_pitch, op.source_slice))) {
    return CUDA_ERROR_ILLEGAL_ADDRESS;
  }
  if (tiled_to || tiled_from) return run_tiled(op);
  for (size_t z = 0; z < op.depth; ++z) {
    for (size_t y = 0; y < op.height; ++y) {
      std::memmove(
          reinterpret_cast<void*>(op.destination + z * op.destination_slice +
                                  y * op.destination_pitch),
          reinterpret_cast<const void*>(op.source + z * op.source_slice + y * op.source_pitch),
          op.width);
    }
  }
  return CUDA_SUCCESS;
}

CUresult run(MemsetOperation& op, Context&) {
  Activity::Scope active;
  if (!reachable(op.device, op.destination, op.width * op.element_bytes, op.height, 1, op.pitch,
                 0)) {
    return CUDA_ERROR_ILLEGAL_ADDRESS;
  }
  for (size_t y = 0; y < op.height; ++y) {
    auto* row = reinterpret_cast<char*>(op.destination + y * op.pitch);
    if (op.element_bytes == 1) {
      std::memset(row, static_cast<int>(op.value & 0xff), op.width);
    } else if (op.element_bytes == 2) {
      std::fill_n(reinterpret_cast<uint16_t*>(row), op.width, static_cast<uint16_t>(op.value));
    } else {
      std::fill_n(reinterpret_cast<uint32_t*>(row), op.width, op.value);
    }
  }
  return CUDA_SUCCESS;
}

CUresult run(HostOperation& op, Context&) {
  as_host_function([&] { op.function(op.data); });
  return CUDA_SUCCESS;
}

CUresult run(CallbackOperation& op, Context&) {
  as_host_function([&] { op.callback(op.stream, CUDA_SUCCESS, op.data); });
  return CUDA_SUCCESS;
}

CUresult run(RecordOperation& op, Context&) {
  op.record->complete();
  return CUDA_SUCCESS;
}

CUresult run(WaitOperation& op, Context& context) {
  op.record->wait(context);
  return CUDA_SUCCESS;
}

CUresult run(FollowOperation& op, Context&) {
  op.stream->wait_for(op.sequence);
  return CUDA_SUCCESS;
}

bool satisfied(const ValueOperation& op) {
  uint64_t word;
  if (op.wide) {
    word = __atomic_load_n(reinterpret_cast<uint64_t*>(op.address), __ATOMIC_ACQUIRE);
  } else {
    word = __atomic_load_n(reinterpret_cast<uint32_t*>(op.address), __ATOMIC_ACQUIRE);
  }
  uint64_t mask = op.wide ? ~0ull : 0xffffffffull;
  switch (op.flags & 3) {
    case CU_STREAM_WAIT_VALUE_EQ:
      return word == (op.value & mask);
    case CU_STREAM_WAIT_VALUE_AND:
      return (word & op.value & mask) != 0;
    case CU_STREAM_WAIT_VALUE_NOR:
      return (~(word | op.value) & mask) != 0;
    default:  // GEQ compares cyclically
      return op.wide ? static_cast<int64_t>(word - op.value) >= 0
                     : static_cast<int32_t>(static_cast<uint32_t>(word) -
                                            static_cast<uint32_t>(op.value)) >= 0;
  }
}

CUresult run(ValueOperation& op, Context& context) {
  size_t bytes = op.wide ? 8 : 4;
  long sleep_ns = 5'000;
  for (int i = 0;; ++i) {
    {
      Activity::Scope active;
      if (!context.device.space.contains(op.address, bytes)) return CUDA_ERROR_ILLEGAL_ADDRESS;
      if (!op.wait) {
        if (op.wide) {
          __atomic_store_n(reinterpret_cast<uint64_t*>(op.address), op.value, __ATOMIC_RELEASE);
        } else {
          __atomic_store_n(reinterpret_cast<uint32_t*>(op.address), static_cast<uint32_t>(op.value),
                           __ATOMIC_RELEASE);
        }
        return CUDA_SUCCESS;
      }
      if (satisfied(op)) return CUDA_SUCCESS;
    }
    if (context.fault() != CUDA_SUCCESS) return CUDA_SUCCESS;
    // The context goes away and nobody may ever write the word: what follows is not done.
    if (context.cancelled()) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    if (i < 100) {
      sched_yield();
    } else {
      timespec pause{0, sleep_ns};
      nanosleep(&pause, nullptr);
      sleep_ns = std::min(sleep_ns * 5 / 4, 200'000l);
    }
  }
}

CUresult run(GraphOperation& op, Context& context) { return op.exec->run(context, op.steps); }

CUresult run(TaskOperation& op, Context&) {
  if (op.task) op.task();
  return CUDA_SUCCESS;
}

}  // namespace

CUresult execute(Operation& operation, Context& context) {
  CUresult result = std::visit([&](auto& op) { return run(op, context); }, operation);
  if (result != CUDA_SUCCESS) context.fail(result);
  return result;
}

void abandon(Operation& operation, CUresult error) {
  if (auto* record = std::get_if<RecordOperation>(&operation)) {
    record->record->complete();
  } else if (auto* task = std::get_if<TaskOperation>(&operation)) {
    if (task->task) task->task();
  } else if (auto* callback = std::get_if<CallbackOperation>(&operation)) {
    as_host_function([&] { callback->callback(callback->stream, error, callback->data); });
  }
}

bool trivial(const Operation& operation) {
  constexpr size_t kSmall = 64 << 10;
  if (auto* copy = std::get_if<CopyOperation>(&operation)) return copy->bytes() <= kSmall;
  if (auto* set = std::get_if<MemsetOperation>(&operation)) {
    return set->width * set->height * set->element_bytes <= kSmall;
  }
  if (std::holds_alternative<RecordOperation>(operation)) return true;
  if (std::holds_alternative<TaskOperation>(operation)) return true;
  if (auto* wait = std::get_if<WaitOperation>(&operation)) return wait->record->is_done();
  if (auto* value = std::get_if<ValueOperation>(&operation)) return !value->wait;
  return false;
}

}  // namespace softgpu
