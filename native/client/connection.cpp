// The command connection: sending batches and everything about its life.
// SPDX-License-Identifier: Apache-2.0
#include "client/connection.hpp"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <cerrno>

#include "base/log.hpp"
#include "client/process.hpp"
#include "client/recorder.hpp"
#include "client/threads.hpp"

namespace outboard::client {
namespace {

constexpr uint64_t acknowledge_after_bytes = 256u << 10;

}  // namespace

Connection::Connection(transport::Connected connected, std::string node, Listener* listener)
    : fd_(std::move(connected.fd)),
      tls_(std::move(connected.tls)),
      wake_fd_(raised(UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)))),
      node_(std::move(node)),
      listener_(listener),
      receiver_(channel()),
      sender_(channel()) {
  close_in_child(fd_.get());
  close_in_child(wake_fd_.get());
}

link::Status Connection::send_hello(std::string_view text) {
  return send_frame(wire::FrameKind::hello, std::as_bytes(std::span(text))) ? link::Status::ok
                                                                            : link::Status::closed;
}

bool Connection::start() {
  for (Batch& batch : batches_) {
    void* memory = ::mmap(nullptr, wire::max_frame_bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return false;
    batch.bytes = static_cast<std::byte*>(memory);
  }
  return start_thread(
      "outboard-io",
      [](void* self) -> void* {
        static_cast<Connection*>(self)->io_loop();
        return nullptr;
      },
      this);
}

// With lock_ held: closes the full batch and opens the next, waiting while all are on their way.
// False only when the connection is lost.
bool Connection::next_batch(size_t whole) {
  while (used_ + whole > wire::max_frame_bytes) {
    if (lost_.load(std::memory_order_relaxed)) {
      used_ = 0;  // nobody will send it
      return false;
    }
    if (closed_ + 1 - sent_ < batch_count) {
      batches_[closed_ % batch_count].used = used_;
      ++closed_;
      used_ = 0;
      return true;
    }
    const uint32_t seen = room_.value();
    const uint32_t sent = sent_;
    lock_.unlock();
    flush();
    lock_.lock();
    if (sent_ == sent && !lost_.load(std::memory_order_relaxed)) {
      lock_.unlock();
      room_.wait_past(seen);  // another thread is sending
      lock_.lock();
    }
  }
  return true;
}

bool Connection::take(std::span<const std::byte>* batch) {
  lock_.lock();
  if (sent_ == closed_) {
    if (used_ == 0) {
      pending_.store(0, std::memory_order_relaxed);
      lock_.unlock();
      return false;
    }
    batches_[closed_ % batch_count].used = used_;
    ++closed_;
    used_ = 0;
  }
  const Batch& taken = batches_[sent_ % batch_count];
  *batch = {taken.bytes, taken.used};
  lock_.unlock();
  return true;
}

void Connection::release() {
  lock_.lock();
  ++sent_;
  lock_.unlock();
  room_.raise();
}

bool Connection::send_frame(wire::FrameKind kind, std::span<const std::byte> payload) {
  if (send_failed_.load(std::memory_order_relaxed)) return false;
  const uint64_t executed = executed_.load(std::memory_order_acquire);
  unacknowledged_bytes_.store(0, std::memory_order_relaxed);
  Recorder::frame(Direction::to_server, kind, sender_.sent() + 1, executed, payload);
  if (sender_.send(kind, payload, executed) == link::Status::ok) return true;
  // The end is declared by whoever reads: what the server said before it ended is still to be read.
  send_failed_.store(true, std::memory_order_relaxed);
  wake_io();
  return false;
}

void Connection::flush() {
  for (;;) {
    if (sending_.exchange(1, std::memory_order_seq_cst) != 0)
      return;  // it looks again before it leaves
    std::span<const std::byte> batch;
    while (take(&batch)) {
      send_frame(wire::FrameKind::batch, batch);
      release();
    }
    if (unacknowledged_bytes_.load(std::memory_order_relaxed) > acknowledge_after_bytes) {
      send_frame(wire::FrameKind::acknowledge, {});
    }
    sending_.store(0, std::memory_order_seq_cst);
    if (pending_.load(std::memory_order_seq_cst) == 0) return;
  }
}

void Connection::declare_lost(const std::string& reason) {
  if (lost_.exchange(true)) return;
  say("the GPU server %s is gone (%s); every call now fails with CUDA_ERROR_DEVICE_UNAVAILABLE, "
      "start the program again to get GPUs",
      node_.c_str(), reason.c_str());
  ::shutdown(fd_.get(), SHUT_RDWR);
  listener_->lost();
  for (auto& slot : waiters_) {
    if (Waiter* waiter = slot.exchange(nullptr)) finish(waiter, result::lost);
  }
  room_.raise();
  wake_io();
}

}  // namespace outboard::client
