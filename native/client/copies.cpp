// The table of device-to-host copies.
// SPDX-License-Identifier: Apache-2.0
#include "client/copies.hpp"

#include <algorithm>
#include <cstring>

namespace outboard::client {
namespace {

constexpr uint32_t slot_bits = 20;
constexpr uint64_t slot_mask = (1u << slot_bits) - 1;

}  // namespace

uint32_t Copies::enter(StreamProgress* stream, void* to, uint64_t bytes) {
  uint32_t slot;
  if (free_.empty()) {
    slot = static_cast<uint32_t>(copies_.size());
    copies_.emplace_back();
  } else {
    slot = free_.back();
    free_.pop_back();
  }
  Copy& copy = copies_[slot];
  copy = {};
  copy.id = ++sequence_ << slot_bits | slot;
  copy.to = static_cast<std::byte*>(to);
  copy.bytes = bytes;
  copy.stream = stream;
  return slot;
}

void Copies::leave(uint32_t slot) {
  copies_[slot].id = 0;
  free_.push_back(slot);
}

void Copies::link(uint32_t slot, uint64_t count) {
  Copy& copy = copies_[slot];
  copy.count = count;
  StreamProgress* stream = copy.stream;
  if (stream->newest_copy != 0) {
    copies_[stream->newest_copy].next = slot;
  } else {
    stream->oldest_copy = slot;
  }
  stream->newest_copy = slot;
  stream->copies_pending.fetch_add(1, std::memory_order_relaxed);
}

Copies::Copy* Copies::find(uint64_t id) {
  const uint64_t slot = id & slot_mask;
  return id != 0 && slot < copies_.size() && copies_[slot].id == id ? &copies_[slot] : nullptr;
}

// Copies of a stream end in order but for refused ones, so the walk is short.
void Copies::finish(uint32_t slot) {
  StreamProgress* stream = copies_[slot].stream;
  uint32_t before = 0;
  for (uint32_t at = stream->oldest_copy; at != slot; at = copies_[at].next) {
    if (at == 0) return;
    before = at;
  }
  (before != 0 ? copies_[before].next : stream->oldest_copy) = copies_[slot].next;
  if (stream->newest_copy == slot) stream->newest_copy = before;
  stream->copies_pending.fetch_sub(1, std::memory_order_relaxed);
  leave(slot);
  apply(stream);
}

void Copies::apply(StreamProgress* stream) {
  uint64_t complete = stream->reported;
  if (stream->oldest_copy != 0) {
    complete = std::min(complete, copies_[stream->oldest_copy].count - 1);
  }
  if (complete > stream->complete.load(std::memory_order_relaxed)) {
    stream->complete.store(complete, std::memory_order_release);
  }
  settled_.raise();
}

bool Copies::deliver(uint64_t id, std::span<const std::byte> content) {
  const std::lock_guard guard(mutex_);
  Copy* copy = find(id);
  if (copy == nullptr) return (id >> slot_bits) <= sequence_;  // cancelled meanwhile
  if (content.size() != copy->bytes) return false;
  std::memcpy(copy->to, content.data(), content.size());
  finish(static_cast<uint32_t>(id & slot_mask));
  return true;
}

std::byte* Copies::place(uint64_t id, uint64_t offset, uint64_t bytes, bool* dropped) {
  const std::lock_guard guard(mutex_);
  const Copy* copy = find(id);
  *dropped = copy == nullptr && id != 0 && (id >> slot_bits) <= sequence_;
  if (copy == nullptr || offset != copy->received || bytes > copy->bytes - offset) return nullptr;
  return copy->to + offset;
}

void Copies::arrived(uint64_t id, uint64_t bytes) {
  const std::lock_guard guard(mutex_);
  Copy* copy = find(id);
  if (copy == nullptr) return;
  copy->received += bytes;
  if (copy->received == copy->bytes) finish(static_cast<uint32_t>(id & slot_mask));
}

void Copies::cancel(uint64_t id) {
  const std::lock_guard guard(mutex_);
  if (find(id) != nullptr) finish(static_cast<uint32_t>(id & slot_mask));
}

void Copies::cancel_stream(StreamProgress* stream) {
  const std::lock_guard guard(mutex_);
  while (stream->oldest_copy != 0) finish(stream->oldest_copy);
}

void Copies::report(StreamProgress* stream, uint64_t completed) {
  const std::lock_guard guard(mutex_);
  if (completed <= stream->reported) return;
  stream->reported = completed;
  apply(stream);
}

bool Copies::wait(StreamProgress* stream, uint64_t count) {
  for (;;) {
    const uint32_t seen = settled_.value();
    if (stream->complete.load(std::memory_order_acquire) >= count) return true;
    {
      const std::lock_guard guard(mutex_);
      if (lost_) return false;
      if (stream->complete.load(std::memory_order_acquire) >= count) return true;
    }
    settled_.wait_past(seen);
  }
}

void Copies::lose() {
  const std::lock_guard guard(mutex_);
  lost_ = true;
  settled_.raise();
}

}  // namespace outboard::client
