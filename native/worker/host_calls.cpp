// Passing host nodes to the client, and waiting for it.
// SPDX-License-Identifier: Apache-2.0
#include "worker/host_calls.hpp"

#include <unistd.h>

namespace outboard::worker {

ClientObject::~ClientObject() { calls.released(object); }

void CUDA_CB ClientObject::run(void* object) {
  const auto* self = static_cast<const ClientObject*>(object);
  self->calls.call(*self);
}

void HostCalls::call(const ClientObject& object) {
  std::unique_lock lock(mutex_);
  const uint64_t number = ++last_;
  calls_.emplace(number, Call{object.context});
  due_.push_back({number, object.object});
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_fd_, &one, sizeof one);
  ended_.wait(lock, [&] { return calls_.at(number).done; });
  calls_.erase(number);
}

bool HostCalls::poll() {
  std::deque<Due> due;
  {
    const std::lock_guard guard(mutex_);
    due.swap(due_);
  }
  for (const Due& next : due) {
    outbox_.message(wire::MessageKind::host_function, next.call, CUDA_SUCCESS,
                    std::as_bytes(std::span(&next.object, 1)));
  }
  return !due.empty();
}

bool HostCalls::done(uint64_t call) {
  const std::lock_guard guard(mutex_);
  const auto found = calls_.find(call);
  if (found == calls_.end()) return false;
  found->second.done = true;
  ended_.notify_all();
  return true;
}

void HostCalls::release(const Context& context) {
  const std::lock_guard guard(mutex_);
  for (auto& [number, call] : calls_) call.done |= call.context == &context;
  ended_.notify_all();
}

void HostCalls::released(uint64_t object) {
  outbox_.message(wire::MessageKind::released, object, CUDA_SUCCESS);
}

}  // namespace outboard::worker
