// Moving the bytes of large copies: one thread sends, one receives.
// SPDX-License-Identifier: Apache-2.0
#include "client/bulk.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "client/handshake.hpp"
#include "client/process.hpp"
#include "client/threads.hpp"
#include "transport/tcp.hpp"
#include "wire/frame.hpp"

namespace outboard::client {

Result Bulk::ready() {
  const std::lock_guard guard(open_mutex_);
  if (fd_) return connection_->is_lost() ? result::lost : result::success;
  if (connection_->is_lost()) return result::lost;
  std::string reason;
  transport::Connected opened = open_(&reason);
  if (!opened) {
    connection_->declare_lost("no connection for large copies: " + reason);
    return result::lost;
  }
  close_in_child(opened.fd.get());
  tls_ = std::move(opened.tls);
  fd_ = std::move(opened.fd);
  const bool started = start_thread(
                           "outboard-send",
                           [](void* self) -> void* {
                             static_cast<Bulk*>(self)->send_loop();
                             return nullptr;
                           },
                           this) &&
                       start_thread(
                           "outboard-recv",
                           [](void* self) -> void* {
                             static_cast<Bulk*>(self)->receive_loop();
                             return nullptr;
                           },
                           this);
  if (!started) {
    connection_->declare_lost("no thread could be started for large copies");
    return result::lost;
  }
  return result::success;
}

Result Bulk::send(uint64_t stream, const void* from, uint64_t bytes, bool wait,
                  const std::function<Result(uint64_t id)>& append) {
  if (const Result result = ready(); result != result::success) return result;
  std::unique_lock lock(mutex_);
  bool left = false;
  Job job;
  job.copy = ++next_copy_;
  job.at = static_cast<const std::byte*>(from);
  job.bytes = bytes;
  job.left = wait ? &left : nullptr;
  // Under the lock, so that the pieces of a stream are queued in the order of its copies.
  if (const Result result = append(job.copy); result != result::success) return result;
  const auto [found, fresh] = queues_.try_emplace(stream);
  Queue& queue = found->second;
  if (queue.dropped) return result::success;  // its context's error says so at the next call
  if (fresh) queue.credit = wire::bulk_window_bytes;
  if (queue.jobs.empty()) turns_.push_back(stream);
  queue.jobs.push_back(job);
  work_.notify_one();
  if (wait) left_.wait(lock, [&] { return left || lost_; });
  return lost_ ? result::lost : result::success;
}

void Bulk::forget(uint64_t stream) {
  const std::lock_guard guard(mutex_);
  const auto found = queues_.find(stream);
  if (found == queues_.end()) return;
  found->second.ended = true;
  if (found->second.jobs.empty()) queues_.erase(found);
}

void Bulk::drop(uint64_t stream) {
  const std::lock_guard guard(mutex_);
  const auto found = queues_.find(stream);
  if (found == queues_.end()) return;
  Queue& queue = found->second;
  queue.dropped = true;
  // The piece that is on its way keeps its job, which ends when the piece has left.
  const size_t kept = queue.sending ? 1 : 0;
  while (queue.jobs.size() > kept) {
    if (queue.jobs.back().left != nullptr) *queue.jobs.back().left = true;
    queue.jobs.pop_back();
  }
  if (queue.jobs.empty()) std::erase(turns_, stream);
  left_.notify_all();
}

void Bulk::drain() {
  std::unique_lock lock(mutex_);
  left_.wait(lock, [this] { return turns_.empty() || lost_; });
}

void Bulk::lose() {
  const std::lock_guard guard(mutex_);
  lost_ = true;
  if (fd_) ::shutdown(fd_.get(), SHUT_RDWR);
  work_.notify_all();
  left_.notify_all();
}

// The next piece of a stream that has credit, taking turns; waits until there is one.
bool Bulk::next_piece(std::unique_lock<std::mutex>* lock, uint64_t* stream, Job* piece) {
  for (;;) {
    if (lost_) return false;
    for (size_t turn = turns_.size(); turn != 0; --turn) {
      *stream = turns_.front();
      turns_.pop_front();
      turns_.push_back(*stream);
      Queue& queue = queues_[*stream];
      if (queue.credit == 0) continue;
      *piece = queue.jobs.front();
      piece->bytes =
          std::min({piece->bytes - piece->offset, uint64_t{wire::bulk_piece_bytes}, queue.credit});
      queue.credit -= piece->bytes;
      queue.sending = true;
      return true;
    }
    work_.wait(*lock);
  }
}

void Bulk::sent_piece(uint64_t stream, const Job& piece) {
  Queue& queue = queues_[stream];
  Job& job = queue.jobs.front();
  queue.sending = false;
  job.offset += piece.bytes;
  if (job.offset != job.bytes && !queue.dropped) return;
  if (job.left != nullptr) {
    *job.left = true;
    left_.notify_all();
  }
  queue.jobs.pop_front();
  if (!queue.jobs.empty()) return;
  std::erase(turns_, stream);
  if (turns_.empty()) left_.notify_all();
  if (queue.ended) queues_.erase(stream);
}

void Bulk::send_loop() {
  std::unique_lock lock(mutex_);
  uint64_t stream = 0;
  Job piece;
  while (next_piece(&lock, &stream, &piece)) {
    lock.unlock();
    wire::BulkHeader header{piece.copy, piece.offset, piece.bytes};
    iovec parts[2] = {{&header, sizeof header},
                      {const_cast<std::byte*>(piece.at + piece.offset), piece.bytes}};
    const bool sent = transport::send_all(channel(), parts) == transport::Status::ok;
    if (!sent) {
      connection_->declare_lost("the connection for large copies ended");
      return;
    }
    lock.lock();
    sent_piece(stream, piece);
  }
}

bool Bulk::receive_piece(std::string* reason) {
  wire::BulkHeader header;
  *reason = "the connection for large copies ended";
  if (transport::receive_all(channel(), &header.copy, sizeof header.copy) !=
      transport::Status::ok) {
    return false;
  }
  std::byte head[8];
  std::memcpy(head, &header.copy, sizeof head);
  if (std::memcmp(head, "OUTE", 4) == 0) {
    *reason = read_refusal(channel(), head);
    return false;
  }
  if (transport::receive_all(channel(), &header.offset, sizeof header - sizeof header.copy) !=
      transport::Status::ok) {
    return false;
  }
  if (header.bytes == 0) {
    const std::lock_guard guard(mutex_);
    const auto found = queues_.find(header.copy);
    if (found != queues_.end() && header.offset <= wire::bulk_window_bytes) {
      found->second.credit =
          std::min<uint64_t>(found->second.credit + header.offset, wire::bulk_window_bytes);
    }
    work_.notify_one();
    return true;
  }
  bool dropped = false;
  std::byte* to = nullptr;
  if (header.bytes <= wire::bulk_piece_bytes) {
    to = copies_->place(header.copy, header.offset, header.bytes, &dropped);
  }
  if (dropped) {
    if (!scratch_) scratch_.reset(new std::byte[wire::bulk_piece_bytes]);
    to = scratch_.get();
  }
  if (to == nullptr) {
    *reason = "it broke the protocol: bytes came that nobody asked for";
    return false;
  }
  if (transport::receive_all(channel(), to, header.bytes) != transport::Status::ok) return false;
  copies_->arrived(header.copy, header.bytes);
  return true;
}

void Bulk::receive_loop() {
  std::string reason;
  while (receive_piece(&reason)) {
  }
  connection_->declare_lost(reason);
}

}  // namespace outboard::client
