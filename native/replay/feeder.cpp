// Feeding bulk copies.
// SPDX-License-Identifier: Apache-2.0
#include "replay/feeder.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <vector>

#include "transport/tcp.hpp"
#include "wire/frame.hpp"

namespace outboard::replay {

Feeder::Feeder(UniqueFd socket)
    : socket_(std::move(socket)),
      sender_([this] { run_sender(); }),
      receiver_([this] { run_receiver(); }) {}

Feeder::~Feeder() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ::shutdown(socket_.get(), SHUT_RDWR);
  changed_.notify_all();
  sender_.join();
  receiver_.join();
}

void Feeder::send(uint64_t stream, uint64_t copy, uint64_t bytes) {
  if (bytes == 0) return;
  const std::lock_guard lock(mutex_);
  streams_[stream].copies.push_back({copy, bytes, 0});
  changed_.notify_all();
}

// Sends a piece of any stream whose window has room; false where there is none.
bool Feeder::send_piece(std::unique_lock<std::mutex>& lock) {
  static const std::vector<std::byte> zeros(wire::bulk_piece_bytes);
  for (auto& [id, stream] : streams_) {
    if (stream.copies.empty()) continue;
    Copy& copy = stream.copies.front();
    wire::BulkHeader header{copy.id, copy.sent_bytes, 0};
    header.bytes = std::min({copy.bytes - copy.sent_bytes, uint64_t{wire::bulk_piece_bytes},
                             wire::bulk_window_bytes - stream.outstanding_bytes});
    if (header.bytes == 0) continue;
    stream.outstanding_bytes += header.bytes;
    copy.sent_bytes += header.bytes;
    if (copy.sent_bytes == copy.bytes) stream.copies.pop_front();
    lock.unlock();
    iovec parts[2] = {{&header, sizeof header},
                      {const_cast<std::byte*>(zeros.data()), header.bytes}};
    const auto status = transport::send_all(socket_.get(), parts);
    lock.lock();
    if (status != transport::Status::ok) stopping_ = true;
    return true;
  }
  return false;
}

void Feeder::run_sender() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (!send_piece(lock)) changed_.wait(lock);
  }
}

void Feeder::run_receiver() {
  std::vector<std::byte> dropped(wire::bulk_piece_bytes);
  wire::BulkHeader header;
  while (transport::receive_all(socket_.get(), &header, sizeof header) == transport::Status::ok) {
    if (header.bytes != 0) {
      if (header.bytes > dropped.size() ||
          transport::receive_all(socket_.get(), dropped.data(), header.bytes) !=
              transport::Status::ok) {
        return;
      }
      continue;
    }
    const std::lock_guard lock(mutex_);
    Stream& stream = streams_[header.copy];
    stream.outstanding_bytes -= std::min(stream.outstanding_bytes, header.offset);
    changed_.notify_all();
  }
}

}  // namespace outboard::replay
