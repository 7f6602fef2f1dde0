// Who reads the command connection, what happens with what comes, and the I/O thread.
// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "client/connection.hpp"
#include "client/recorder.hpp"

namespace outboard::client {
namespace {

constexpr uint64_t follower_spin_ns = 10'000;
constexpr uint64_t io_spin_ns = 50'000;
// How long the I/O thread leaves the socket alone after a caller has read it. Polling it meanwhile
// would wake this thread for every answer that a caller takes by itself.
constexpr uint64_t io_standby_ns = 2'000'000;
constexpr uint64_t io_standby_most_ns = 128'000'000;
constexpr uint64_t long_lead_ns = 1'000'000;

}  // namespace

// ---- waiting
// ---------------------------------------------------------------------------------------

void Connection::begin_wait(Waiter* waiter) {
  for (;;) {
    const uint32_t request = next_request_.fetch_add(1, std::memory_order_relaxed);
    if (request == 0) continue;  // 0 asks for no answer
    Waiter* none = nullptr;
    auto& slot = waiters_[request & ((1u << request_bits) - 1)];
    waiter->request = request;
    if (slot.compare_exchange_strong(none, waiter, std::memory_order_seq_cst)) return;
  }
}

void Connection::end_wait(Waiter* waiter) {
  Waiter* mine = waiter;
  auto& slot = waiters_[waiter->request & ((1u << request_bits) - 1)];
  if (slot.compare_exchange_strong(mine, nullptr)) return;
  // Someone took it to finish it: the stack must outlive that.
  while (waiter->state.load(std::memory_order_acquire) != Waiter::done) pause_cpu();
}

void Connection::finish(Waiter* waiter, Result result) {
  waiter->result = result;
  // After this the waiter's stack may be gone; waking an address that nobody waits on is harmless.
  if (waiter->state.exchange(Waiter::done, std::memory_order_seq_cst) == Waiter::sleeping) {
    futex_wake(&waiter->state);
  }
}

void Connection::wait(Waiter* waiter) {
  while (waiter->state.load(std::memory_order_acquire) != Waiter::done) {
    if (lost_.load(std::memory_order_seq_cst)) {
      // declare_lost releases those it finds; one that came later releases itself.
      Waiter* mine = waiter;
      auto& slot = waiters_[waiter->request & ((1u << request_bits) - 1)];
      if (slot.compare_exchange_strong(mine, nullptr)) finish(waiter, result::lost);
      continue;
    }
    if (try_lead()) {
      lead(waiter);
    } else {
      follow(waiter);
    }
  }
}

bool Connection::try_lead() {
  uint32_t seen = role_.load(std::memory_order_seq_cst);
  // From `parked` the role is stolen: the I/O thread sleeps in poll and looks when it wakes.
  return seen != role_taken &&
         role_.compare_exchange_strong(seen, role_taken, std::memory_order_seq_cst);
}

void Connection::lead(Waiter* waiter) {
  caller_reads_.fetch_add(1, std::memory_order_relaxed);
  const uint64_t begun = now_ns();
  uint64_t spin_ns = spin_.begin();
  while (waiter->state.load(std::memory_order_relaxed) != Waiter::done &&
         !lost_.load(std::memory_order_relaxed)) {
    if (spin_ns != 0 && now_ns() >= begun + spin_ns) {
      spin_.end(false);
      spin_ns = 0;
    }
    receive(spin_ns != 0 ? 0 : -1);
  }
  if (spin_ns != 0) spin_.end(true);
  leave();
  // The I/O thread sleeps longer the longer one caller reads; after such a wait waking it costs
  // little.
  if (now_ns() > begun + long_lead_ns) wake_io();
}

// Leaves nothing in the receiver's buffer that poll would not report.
void Connection::leave() {
  while (!lost_.load(std::memory_order_relaxed) && receiver_.buffered()) receive(0);
  role_.store(role_free, std::memory_order_seq_cst);
  if (followers_.load(std::memory_order_seq_cst) != 0) hand_over();
  if (expected_.load(std::memory_order_relaxed) > 0) wake_io();
}

void Connection::follow(Waiter* waiter) {
  const uint64_t until = now_ns() + follower_spin_ns;
  do {
    for (int round = 0; round < 16; ++round) pause_cpu();
    if (waiter->state.load(std::memory_order_acquire) == Waiter::done) return;
    if (role_.load(std::memory_order_relaxed) != role_taken) return;
  } while (now_ns() < until);

  followers_lock_.lock();
  waiter->next = first_follower_;
  waiter->previous = nullptr;
  if (first_follower_ != nullptr) first_follower_->previous = waiter;
  first_follower_ = waiter;
  followers_.fetch_add(1, std::memory_order_seq_cst);
  followers_lock_.unlock();

  // Either the departing leader sees this follower in the list, or the role is seen free here.
  uint32_t expected = Waiter::spinning;
  if (role_.load(std::memory_order_seq_cst) == role_taken && !lost_.load() &&
      waiter->state.compare_exchange_strong(expected, Waiter::sleeping)) {
    while (waiter->state.load(std::memory_order_acquire) == Waiter::sleeping) {
      futex_wait(&waiter->state, Waiter::sleeping);
    }
  }
  followers_lock_.lock();
  if (waiter->next != nullptr) waiter->next->previous = waiter->previous;
  (waiter->previous != nullptr ? waiter->previous->next : first_follower_) = waiter->next;
  followers_.fetch_sub(1, std::memory_order_seq_cst);
  followers_lock_.unlock();
  expected = Waiter::lead;
  waiter->state.compare_exchange_strong(expected, Waiter::spinning);
}

void Connection::hand_over() {
  followers_lock_.lock();
  for (Waiter* waiter = first_follower_; waiter != nullptr; waiter = waiter->next) {
    uint32_t state = waiter->state.load(std::memory_order_seq_cst);
    if (state == Waiter::done) continue;
    if (!waiter->state.compare_exchange_strong(state, Waiter::lead)) continue;
    if (state == Waiter::sleeping) futex_wake(&waiter->state);
    break;
  }
  followers_lock_.unlock();
}

// ---- receiving
// -------------------------------------------------------------------------------------

bool Connection::receive(int timeout_ms) {
  link::Frame frame;
  switch (receiver_.next(&frame, timeout_ms)) {
    case link::Status::ok:
      break;
    case link::Status::again:
      return false;
    case link::Status::closed:
      declare_lost("the connection ended");
      return false;
    case link::Status::broken:
      declare_lost("it broke the protocol: " + receiver_.error());
      return false;
  }
  Recorder::frame(Direction::from_server, frame.kind, frame.number, frame.acknowledged,
                  frame.payload);
  if (frame.kind == wire::FrameKind::batch) {
    deliver_batch(frame.payload);
  } else if (frame.kind == wire::FrameKind::goodbye) {
    const std::string text(reinterpret_cast<const char*>(frame.payload.data()),
                           frame.payload.size());
    declare_lost(text.empty() ? "it ended the session" : text);
  } else if (frame.kind == wire::FrameKind::hello) {
    declare_lost("it broke the protocol: a hello came from the server");
  }
  executed_.store(frame.number, std::memory_order_release);
  const uint64_t bytes =
      unacknowledged_bytes_.fetch_add(sizeof(wire::FrameHeader) + frame.payload.size());
  if (bytes > (256u << 10) && !lost_.load(std::memory_order_relaxed)) flush();
  return true;
}

void Connection::deliver_batch(std::span<const std::byte> batch) {
  wire::BatchReader<wire::MessageHeader> messages(batch);
  wire::MessageHeader header;
  std::span<const std::byte> payload;
  while (messages.next(&header, &payload)) {
    if (deliver(header, payload)) continue;
    char text[96];
    std::snprintf(text, sizeof text, "it broke the protocol: a message of kind %u made no sense",
                  static_cast<unsigned>(header.kind));
    declare_lost(text);
    return;
  }
  if (!messages.ok()) declare_lost("it broke the protocol: a message was longer than its frame");
}

bool Connection::deliver(const wire::MessageHeader& header, std::span<const std::byte> payload) {
  wire::Reader reader(payload);
  uint64_t context = 0;
  switch (header.kind) {
    case wire::MessageKind::reply:
      return deliver_reply(header, payload);
    case wire::MessageKind::reply_part:
      return deliver_part(header, payload);
    case wire::MessageKind::copied:
      if (header.result == result::success) return listener_->copied(header.subject, payload);
      listener_->copy_failed(header.subject);
      return true;
    case wire::MessageKind::progress: {
      if (payload.size() % sizeof(wire::Progress) != 0) return false;
      wire::Progress progress;
      while (reader.raw(&progress, sizeof progress)) listener_->progress(progress);
      return true;
    }
    case wire::MessageKind::host_function: {
      uint64_t function = 0;
      if (payload.empty()) {
        listener_->host_function(header.subject);
      } else if (reader.raw(&function, sizeof function)) {
        listener_->graph_function(header.subject, function);
      } else {
        return false;
      }
      return true;
    }
    case wire::MessageKind::released:
      listener_->released(header.subject);
      return true;
    case wire::MessageKind::refused:
      if (!reader.raw(&context, sizeof context)) return false;
      listener_->refused(static_cast<wire::Op>(header.subject), header.result, context);
      return true;
    case wire::MessageKind::fatal:
      if (!reader.raw(&context, sizeof context)) return false;
      listener_->fatal(header.result, context);
      return true;
    case wire::MessageKind::text:
      // The program's own streams, so that the order with what it prints itself holds.
      std::fwrite(
          payload.data(), 1, payload.size(),
          header.subject == static_cast<uint64_t>(wire::TextTo::standard_error) ? stderr : stdout);
      return true;
  }
  return false;
}

bool Connection::deliver_reply(const wire::MessageHeader& header,
                               std::span<const std::byte> payload) {
  std::vector<std::byte> whole;
  if (!parts_.empty()) {
    if (parts_of_ != header.subject) return false;
    whole.swap(parts_);
    whole.insert(whole.end(), payload.begin(), payload.end());
    payload = whole;
  }
  auto& slot = waiters_[header.subject & ((1u << request_bits) - 1)];
  Waiter* waiter = slot.load(std::memory_order_acquire);
  if (waiter == nullptr || waiter->request != header.subject) return lost_.load();
  if (!slot.compare_exchange_strong(waiter, nullptr)) return true;  // released by declare_lost
  waiter->result = header.result;
  const bool sense = waiter->deliver(waiter, payload);
  finish(waiter, sense || header.result != result::success ? header.result : result::lost);
  return sense || header.result != result::success;
}

bool Connection::deliver_part(const wire::MessageHeader& header,
                              std::span<const std::byte> payload) {
  if (!parts_.empty() && header.subject != parts_of_) return false;
  if (parts_.size() + payload.size() > wire::max_reply_bytes) return false;
  parts_of_ = header.subject;
  parts_.insert(parts_.end(), payload.begin(), payload.end());
  return true;
}

void Connection::read_available() {
  while (!lost_.load(std::memory_order_relaxed) && receive(0)) {
  }
}

// ---- the I/O thread
// --------------------------------------------------------------------------------

void Connection::wake_io() {
  if (io_asleep_.exchange(0, std::memory_order_seq_cst) == 0) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_fd_.get(), &one, sizeof one);
}

void Connection::io_loop() {
  while (!lost_.load(std::memory_order_relaxed)) {
    flush();
    if (!io_spin()) io_sleep();
  }
}

// True as soon as there is something to send; false after 50 µs of nothing, or at once where
// spinning would take the core that the caller or the server's end needs.
bool Connection::io_spin() {
  if (!spin_.plenty()) return pending_.load(std::memory_order_relaxed) != 0;
  const uint64_t until = now_ns() + io_spin_ns;
  do {
    for (int round = 0; round < 32; ++round) {
      if (pending_.load(std::memory_order_relaxed) != 0) return true;
      pause_cpu();
    }
  } while (now_ns() < until);
  return false;
}

void Connection::io_sleep() {
  const uint32_t reads = caller_reads_.load(std::memory_order_relaxed);
  const bool callers_read = reads != io_seen_reads_ && expected_.load() <= 0;
  if (reads != io_seen_reads_) standby_ns_ = io_standby_ns;
  io_seen_reads_ = reads;
  uint32_t is_free = role_free;
  const bool reader = !callers_read && role_.compare_exchange_strong(is_free, role_parked);

  io_asleep_.store(1, std::memory_order_seq_cst);
  pollfd items[2] = {{wake_fd_.get(), POLLIN, 0}, {fd_.get(), POLLIN, 0}};
  if (pending_.load(std::memory_order_seq_cst) == 0 && !lost_.load()) {
    const timespec standby{0, static_cast<long>(standby_ns_)};
    if (!reader) standby_ns_ = std::min(2 * standby_ns_, io_standby_most_ns);
    ::ppoll(items, reader ? 2 : 1, reader ? nullptr : &standby, nullptr);
  }
  io_asleep_.store(0, std::memory_order_seq_cst);
  if ((items[0].revents & POLLIN) != 0) {
    uint64_t count;
    [[maybe_unused]] const ssize_t drained = ::read(wake_fd_.get(), &count, sizeof count);
  }
  if (!reader) return;
  uint32_t parked = role_parked;
  if (!role_.compare_exchange_strong(parked, role_taken)) return;  // a caller reads
  if (items[1].revents != 0 || send_failed_.load(std::memory_order_relaxed)) read_available();
  leave();
}

}  // namespace outboard::client
