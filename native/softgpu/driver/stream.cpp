// How streams order, run and complete their operations.
// SPDX-License-Identifier: Apache-2.0
#include "stream.hpp"

#include <sched.h>

#include <algorithm>
#include <chrono>

#include "context.hpp"
#include "executor.hpp"
#include "green_context.hpp"
#include "per_thread.hpp"

namespace softgpu {

thread_local int per_thread_depth = 0;

namespace {

std::atomic<uint64_t> next_id{1};

/// Looks for a short while before sleeping: a wake-up costs more than most small operations.
template <class Done>
bool spin(Done&& done) {
  for (int i = 0; i < 200; ++i) {
    if (done()) return true;
    if (i > 20) sched_yield();
  }
  return done();
}

}  // namespace

HandleTable<Stream, CUstream, 2>& streams() {
  static auto& table = *new HandleTable<Stream, CUstream, 2>;
  return table;
}

Stream::Stream(Context& owner, unsigned stream_flags, int stream_priority,
               std::shared_ptr<GreenContext> part)
    : context(owner.weak_from_this()),
      green(std::move(part)),
      flags(stream_flags),
      priority(stream_priority),
      id(next_id.fetch_add(1)) {}

bool Stream::nothing_before(Context& owner) const {
  if (!idle()) return false;
  if (legacy) {
    bool idle_all = true;
    owner.each_stream([&](Stream& other) {
      idle_all = idle_all && (!other.blocking() || other.green != green || other.idle());
    });
    return idle_all;
  }
  return !blocking() || its_legacy(owner)->idle();
}

bool Stream::orphaned() const { return green && green->destroyed.load(); }

std::shared_ptr<Stream> Stream::its_legacy(Context& owner) const {
  return green && green->legacy ? green->legacy : owner.legacy_stream();
}

void Stream::add_legacy_order(Context& owner) {
  if (legacy) {
    owner.each_stream([&](Stream& other) {
      if (&other != this && other.blocking() && other.green == green && !other.idle()) {
        push(FollowOperation{other.shared_from_this(), other.issued()});
      }
    });
  } else if (blocking()) {
    std::shared_ptr<Stream> legacy_stream = its_legacy(owner);
    if (legacy_stream->idle()) return;
    const uint64_t issued = legacy_stream->issued();
    push(FollowOperation{std::move(legacy_stream), issued});
  }
}

void Stream::submit(Operation operation, bool inline_any) {
  std::shared_ptr<Context> owner = context.lock();
  if (!owner) {
    abandon(operation, CUDA_ERROR_CONTEXT_IS_DESTROYED);
    return;
  }
  bool quick = inline_any || trivial(operation);
  std::unique_lock lock(mutex_);
  if (quick && nothing_before(*owner)) {
    // Under the lock, so that another thread's operation on this stream comes after it.
    issued_.fetch_add(1);
    if (owner->fault() == CUDA_SUCCESS) {
      execute(operation, *owner);
    } else {
      abandon(operation, owner->fault());
    }
    completed_.fetch_add(1);
    if (waiters_.load() > 0) changed_.notify_all();
    return;
  }
  add_legacy_order(*owner);
  push(std::move(operation));
  if (!running_) {
    running_ = true;
    lock.unlock();
    Executor::run(shared_from_this());
  }
}

void Stream::push(Operation operation) {
  queue_.push_back(std::move(operation));
  issued_.fetch_add(1);
}

void Stream::drain() {
  std::shared_ptr<Context> owner = context.lock();
  std::unique_lock lock(mutex_);
  while (!queue_.empty()) {
    Operation operation = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    if (owner && owner->fault() == CUDA_SUCCESS) {
      execute(operation, *owner);
    } else {
      CUresult error = owner ? owner->fault() : CUDA_ERROR_CONTEXT_IS_DESTROYED;
      abandon(operation, error != CUDA_SUCCESS ? error : CUDA_ERROR_CONTEXT_IS_DESTROYED);
    }
    operation = TaskOperation{};  // what it held goes before anyone is told that it is complete
    lock.lock();
    completed_.fetch_add(1);
    if (waiters_.load() > 0) changed_.notify_all();
  }
  running_ = false;
}

void Stream::wait_for(uint64_t sequence) {
  if (spin([&] { return reached(sequence); })) return;
  waiters_.fetch_add(1);
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return reached(sequence); });
  }
  waiters_.fetch_sub(1);
}

CUresult Stream::synchronize() {
  wait_for(issued());
  std::shared_ptr<Context> owner = context.lock();
  return owner ? owner->fault() : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

std::shared_ptr<Stream> make_stream(Context& context, std::shared_ptr<GreenContext> green,
                                    unsigned flags, int priority) {
  auto stream = std::make_shared<Stream>(context, flags, std::clamp(priority, -5, 0), green);
  stream->handle = streams().insert(stream);
  context.retire_streams();
  context.add_stream(stream);
  std::shared_ptr<Record> gates[] = {context.gate(), nullptr};
  if (green) {
    std::lock_guard lock(green->mutex);
    gates[1] = green->gate;
  }
  for (auto& gate : gates) {
    if (gate && gate->done.load() == 0) stream->submit(WaitOperation{std::move(gate)});
  }
  return stream;
}

std::shared_ptr<Stream> find_stream(CUstream handle, Context& context) {
  if (handle == nullptr) {
    return per_thread_depth > 0 ? context.per_thread_stream() : default_stream(context);
  }
  if (handle == CU_STREAM_LEGACY) return default_stream(context);
  if (handle == CU_STREAM_PER_THREAD) return context.per_thread_stream();
  return streams().find(handle);
}

}  // namespace softgpu
