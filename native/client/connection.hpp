// The ordered command stream to one server: batches out, messages in, and who reads while whom
// waits. SPDX-License-Identifier: Apache-2.0
//
// Callers append commands to a bounded ring of batches under a spin lock. One I/O thread sends what
// nobody flushes; a caller that wants an answer flushes by itself and, while it waits, reads the
// socket by itself (the leader). Other waiters (followers) get their answers from the leader; when
// it has its own it hands the role to one of them, and leaves it free otherwise, without a system
// call.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/fds.hpp"
#include "base/spin.hpp"
#include "client/futex.hpp"
#include "client/progress.hpp"
#include "client/result.hpp"
#include "generated/commands.hpp"
#include "link/link.hpp"
#include "wire/frame.hpp"

namespace outboard::client {

/// What a connection tells the runtime that owns it. Called from whichever thread reads; must not
/// call the connection back in a way that waits for an answer.
class Listener {
 public:
  virtual void progress(const wire::Progress& progress) = 0;
  virtual bool copied(uint64_t copy,
                      std::span<const std::byte> content) = 0;  ///< false: not asked for
  virtual void copy_failed(uint64_t copy) = 0;                  ///< its bytes will not come
  virtual void host_function(uint64_t function) = 0;
  /// Of a graph's node: `call` is what HostFunctionDone names.
  virtual void graph_function(uint64_t call, uint64_t function) = 0;
  virtual void released(uint64_t object) = 0;  ///< no graph has it any more
  virtual void refused(wire::Op op, Result result, uint64_t context) = 0;
  virtual void fatal(Result result, uint64_t context) = 0;
  virtual void lost() = 0;  ///< once; every later call answers result::lost

 protected:
  ~Listener() = default;
};

/// One call's wait for its answer; lives on the caller's stack.
struct Waiter {
  enum State : uint32_t { spinning, sleeping, done, lead };

  std::atomic<uint32_t> state{spinning};
  uint32_t request = 0;
  Result result = result::success;
  /// Takes the reply's payload in the reader's thread; false: it makes no sense.
  bool (*deliver)(Waiter*, std::span<const std::byte>) = nullptr;
  void* context = nullptr;
  Waiter* next = nullptr;  ///< in the list of sleeping followers
  Waiter* previous = nullptr;
};

/// An answer with the bytes that its reply's spans point into.
template <typename Command>
struct Answer {
  Result result = result::success;
  typename Command::Reply reply;
  std::unique_ptr<std::byte[]> bytes;
};

class Connection {
 public:
  /// `node` names the server in messages.
  Connection(transport::Connected connected, std::string node, Listener* listener);

  /// Sends one frame that is not a batch; only before start().
  link::Status send_hello(std::string_view text);
  /// Starts the I/O thread.
  bool start();
  int fd() const { return fd_.get(); }
  transport::Channel channel() const { return {fd_.get(), tls_.get()}; }
  const std::string& node() const { return node_; }
  bool is_lost() const { return lost_.load(std::memory_order_relaxed); }

  /// Appends an async command. `stream` counts it; `count` gets the stream's count with it.
  template <typename Command>
  Result send(const Command& command, uint32_t context, StreamProgress* stream = nullptr,
              uint64_t* count = nullptr) {
    return append(Command::op, context, 0, command.encoded_bytes(), stream, count,
                  [&](wire::Writer& writer) { command.encode(writer); });
  }

  /// Appends a command whose payload `fill` writes (exactly `payload_bytes`, a multiple of 8).
  template <typename Fill>
  Result send_raw(wire::Op op, uint32_t context, size_t payload_bytes, StreamProgress* stream,
                  Fill&& fill) {
    return append(op, context, 0, payload_bytes, stream, nullptr, static_cast<Fill&&>(fill));
  }

  /// Sends a command and waits for its answer.
  template <typename Command>
  void call(const Command& command, uint32_t context, Answer<Command>* answer,
            StreamProgress* stream = nullptr, uint64_t* count = nullptr) {
    Waiter waiter;
    waiter.context = answer;
    waiter.deliver = [](Waiter* self, std::span<const std::byte> payload) {
      auto* to = static_cast<Answer<Command>*>(self->context);
      if (self->result != result::success && payload.empty()) return true;
      if (payload.size() > Command::Reply::fixed_bytes) {
        to->bytes.reset(new std::byte[payload.size()]);
        std::memcpy(to->bytes.get(), payload.data(), payload.size());
        payload = {to->bytes.get(), payload.size()};
      }
      wire::Reader reader(payload);
      return to->reply.decode(reader);
    };
    call_with(command, context, &waiter, stream, count);
    answer->result = waiter.result;
  }

  /// As call, with a delivery of the caller's own.
  template <typename Command>
  void call_with(const Command& command, uint32_t context, Waiter* waiter, StreamProgress* stream,
                 uint64_t* count) {
    const Result started = start_call(command, context, waiter, stream, count);
    if (started == result::success) {
      finish_call(waiter);
    } else {
      waiter->result = started;
    }
  }

  /// The two halves of call_with, for callers that must enter something in a table between them.
  /// After a start that failed there is nothing to finish.
  template <typename Command>
  Result start_call(const Command& command, uint32_t context, Waiter* waiter,
                    StreamProgress* stream, uint64_t* count) {
    begin_wait(waiter);
    const Result appended =
        append(Command::op, context, waiter->request, command.encoded_bytes(), stream, count,
               [&](wire::Writer& writer) { command.encode(writer); });
    if (appended != result::success) end_wait(waiter);
    return appended;
  }
  void finish_call(Waiter* waiter) {
    flush();
    wait(waiter);
    end_wait(waiter);
  }

  /// Sends what is pending now.
  void flush();

  /// Something will come that no caller waits for (a host function): while the count is not zero
  /// the I/O thread reads at once whenever no caller does.
  void expect(int change) {
    if (expected_.fetch_add(change) + change > 0 && change > 0) wake_io();
  }

  /// Ends everything: every waiter is released, one line says why. `reason` is what happened.
  void declare_lost(const std::string& reason);

 private:
  static constexpr uint32_t batch_count = 4;  // with 1 MiB each the bound of what waits to be sent
  static constexpr uint32_t request_bits = 12;
  enum Role : uint32_t { role_free, role_parked, role_taken };

  template <typename Fill>
  Result append(wire::Op op, uint32_t context, uint32_t request, size_t payload_bytes,
                StreamProgress* stream, uint64_t* count, Fill&& fill) {
    const size_t whole = sizeof(wire::CommandHeader) + payload_bytes;
    if (whole > wire::max_frame_bytes) return result::invalid_value;
    lock_.lock();
    if (used_ + whole > wire::max_frame_bytes && !next_batch(whole)) {
      lock_.unlock();
      return result::lost;
    }
    std::byte* at = batches_[closed_ % batch_count].bytes + used_;
    wire::CommandHeader header;
    header.payload_bytes = static_cast<uint32_t>(payload_bytes);
    header.op = static_cast<uint16_t>(op);
    header.context = context;
    header.request = request;
    std::memcpy(at, &header, sizeof header);
    wire::Writer writer(at + sizeof header);
    fill(writer);
    used_ += static_cast<uint32_t>(whole);
    if (stream != nullptr) {
      const uint64_t now = stream->issued.load(std::memory_order_relaxed) + 1;
      stream->issued.store(now, std::memory_order_relaxed);
      if (count != nullptr) *count = now;
    }
    // The store must be seen before io_asleep_ is read below, or the I/O thread sleeps on it.
    if (pending_.load(std::memory_order_relaxed) == 0) pending_.store(1, std::memory_order_seq_cst);
    lock_.unlock();
    if (lost_.load(std::memory_order_relaxed)) return result::lost;
    if (request == 0 && io_asleep_.load(std::memory_order_seq_cst) != 0) wake_io();
    return result::success;
  }

  struct Batch {
    std::byte* bytes = nullptr;
    uint32_t used = 0;
  };

  bool next_batch(size_t whole);
  bool take(std::span<const std::byte>* batch);
  void release();
  bool send_frame(wire::FrameKind kind, std::span<const std::byte> payload);

  void begin_wait(Waiter* waiter);
  void end_wait(Waiter* waiter);
  void wait(Waiter* waiter);
  bool try_lead();
  void lead(Waiter* waiter);
  void leave();
  void follow(Waiter* waiter);
  void hand_over();

  bool receive(int timeout_ms);  ///< one frame; false: none came, or the connection is lost
  void read_available();
  void deliver_batch(std::span<const std::byte> batch);
  bool deliver(const wire::MessageHeader& header, std::span<const std::byte> payload);
  bool deliver_reply(const wire::MessageHeader& header, std::span<const std::byte> payload);
  bool deliver_part(const wire::MessageHeader& header, std::span<const std::byte> payload);
  void finish(Waiter* waiter, Result result);

  void wake_io();
  void io_loop();
  bool io_spin();
  void io_sleep();

  UniqueFd fd_;
  std::unique_ptr<transport::Tls> tls_;
  UniqueFd wake_fd_;
  std::string node_;
  Listener* listener_;
  link::FrameReceiver receiver_;
  // The parts of a reply that is larger than a frame, which come without another reply between.
  std::vector<std::byte> parts_;
  uint64_t parts_of_ = 0;  ///< the request
  link::FrameSender sender_;

  // Filling and sending. Under lock_: used_, closed_, sent_, and the contents of the open batch.
  alignas(64) SpinLock lock_;
  uint32_t used_ = 0;
  uint32_t closed_ = 0;  ///< batches closed so far; batch number closed_ is being filled
  uint32_t sent_ = 0;    ///< batches whose buffers may be used again
  std::atomic<uint32_t> pending_{0};
  std::atomic<uint32_t> io_asleep_{0};
  Batch batches_[batch_count];
  alignas(64) std::atomic<uint32_t> sending_{0};
  Signal room_;
  std::atomic<bool> send_failed_{false};

  // Receiving. Whoever holds the role may use receiver_ and spin_.
  alignas(64) std::atomic<uint32_t> role_{role_free};
  Spin spin_;
  std::atomic<uint32_t> caller_reads_{
      0};  ///< counts leaders, for the I/O thread to see that callers read
  std::atomic<int> expected_{0};
  std::atomic<uint64_t> executed_{0};
  std::atomic<uint64_t> unacknowledged_bytes_{0};
  SpinLock followers_lock_;
  std::atomic<uint32_t> followers_{0};
  Waiter* first_follower_ = nullptr;

  std::atomic<bool> lost_{false};
  std::atomic<uint32_t> next_request_{1};
  std::atomic<Waiter*> waiters_[1u << request_bits] = {};
  uint32_t io_seen_reads_ = 0;  ///< of the I/O thread alone, like the next
  uint64_t standby_ns_ = 2'000'000;
};

}  // namespace outboard::client
