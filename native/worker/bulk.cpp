// Bulk copies: receiving, returning credit, sending.
// SPDX-License-Identifier: Apache-2.0
#include "worker/bulk.hpp"

#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "transport/tcp.hpp"

namespace outboard::worker {
namespace {

constexpr auto shortest_wait = std::chrono::microseconds(10);
constexpr auto longest_wait = std::chrono::microseconds(200);
constexpr int handshake_timeout_ms = 10'000;

void prepare_thread(const char* name) {
  ::prctl(PR_SET_NAME, name);
  ::prctl(PR_SET_TIMERSLACK, 1000UL);  // ns; waits of 10 µs would otherwise last 60
}

}  // namespace

Bulk::~Bulk() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const auto& connection : connections_) ::shutdown(connection->socket.get(), SHUT_RDWR);
  }
  changed_.notify_all();
  for (const auto& connection : connections_) connection->receiver.join();
  if (sender_.joinable()) sender_.join();
}

void Bulk::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_fd_, &one, sizeof one);
}

bool Bulk::end(const char* error) {
  {
    const std::lock_guard lock(mutex_);
    if (error && error_.empty() && !stopping_) error_ = error;
    for (const auto& connection : connections_) ::shutdown(connection->socket.get(), SHUT_RDWR);
    ended_.store(true, std::memory_order_release);
  }
  changed_.notify_all();
  wake();
  return false;
}

std::string Bulk::error() {
  const std::lock_guard lock(mutex_);
  return error_;
}

void Bulk::add_connection(UniqueFd socket, std::optional<std::array<uint8_t, 32>> key) {
  const std::lock_guard lock(mutex_);
  auto connection = std::make_unique<Connection>();
  connection->socket = std::move(socket);
  connection->ready = !key;
  Connection* const self = connection.get();
  connection->receiver = std::thread([this, self, key] { receive(self, key); });
  connections_.push_back(std::move(connection));
  if (!sender_.joinable()) sender_ = std::thread([this] { send(); });
  changed_.notify_all();
}

void Bulk::open(const std::shared_ptr<UploadRing>& ring) {
  const std::lock_guard lock(mutex_);
  uploads_.push_back(ring);
}

void Bulk::open(const std::shared_ptr<DownloadRing>& ring) {
  const std::lock_guard lock(mutex_);
  downloads_.push_back(ring);
}

bool Bulk::close(const std::shared_ptr<UploadRing>& ring) {
  const std::lock_guard lock(mutex_);
  if (ring->received != ring->announced || ring->outstanding_bytes != 0) return false;
  std::erase(uploads_, ring);
  return true;
}

bool Bulk::close(const std::shared_ptr<DownloadRing>& ring) {
  const std::lock_guard lock(mutex_);
  if (!ring->dead && ring->sent.load(std::memory_order_acquire) != ring->issued) return false;
  std::erase(downloads_, ring);
  return true;
}

void Bulk::kill(UploadRing& ring) {
  const std::lock_guard lock(mutex_);
  ring.dead = true;
  changed_.notify_all();
}

void Bulk::kill(DownloadRing& ring) {
  const std::lock_guard lock(mutex_);
  ring.dead = true;
  ring.pieces.clear();
  ring.sent.store(UINT64_MAX, std::memory_order_release);  // nobody waits for them any more
}

// ---- receiving ----------------------------------------------------------------------------------

bool Bulk::announce(const std::shared_ptr<UploadRing>& ring, uint64_t copy, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (!incoming_.try_emplace(copy, Incoming{ring, ring->stream, 0, bytes}).second) return false;
  if (ring->copies.empty()) {
    // Nothing is in the ring, so that the copy may begin where its pieces are cut as the client's
    // are.
    const uint64_t whole = (ring->announced + UploadRing::ring_bytes - 1) / UploadRing::ring_bytes *
                           UploadRing::ring_bytes;
    ring->announced = ring->received = ring->credited = whole;
  }
  UploadRing::Copy place{copy, ring->announced, ring->announced + bytes, ring->next_piece};
  ring->announced = place.end;
  ring->next_piece += place.pieces_before(place.end);
  ring->copies.push_back(place);
  changed_.notify_all();
  return true;
}

bool Bulk::announce_dropped(uint64_t stream, uint64_t copy, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (!incoming_.try_emplace(copy, Incoming{nullptr, stream, 0, bytes}).second) return false;
  changed_.notify_all();
  return true;
}

UploadRing::Copy Bulk::place(UploadRing& ring, uint64_t copy) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(ring.copies.begin(), ring.copies.end(),
                                  [&](const auto& entry) { return entry.id == copy; });
  return found == ring.copies.end() ? UploadRing::Copy{} : *found;
}

void Bulk::discard(UploadRing& ring, uint64_t copy) {
  const std::lock_guard lock(mutex_);
  for (UploadRing::Copy& entry : ring.copies) {
    if (entry.id == copy) entry.discard = true;
  }
  changed_.notify_all();
}

void Bulk::release_waits(UploadRing& ring) {
  const std::lock_guard lock(mutex_);
  ring.dead = true;
  ring.words.store(Words::upload_arrived, static_cast<uint32_t>(ring.next_piece - 1));
}

void Bulk::receive(Connection* connection, const std::optional<std::array<uint8_t, 32>>& key) {
  prepare_thread("outboard-bulk-rx");
  if (key) {
    std::string error;
    connection->tls = transport::Tls::handshake(
        connection->socket.get(), transport::Tls::Side::server, *key, handshake_timeout_ms, &error);
    if (!connection->tls) {
      end(nullptr);
      return;
    }
    const std::lock_guard lock(mutex_);
    connection->ready = true;
    changed_.notify_all();
  }
  const transport::Channel channel(connection->socket.get(), connection->tls.get());
  std::vector<std::byte> scratch;
  while (receive_piece(channel, scratch)) {
  }
}

// Finds the copy that a piece belongs to and checks that it is the piece that must come next. The
// command travels on another connection and may be later: the wait ends with the session.
bool Bulk::claim(const wire::BulkHeader& header, Incoming* copy, uint64_t* position) {
  std::unique_lock lock(mutex_);
  auto found = incoming_.end();
  changed_.wait(lock, [&] {
    found = incoming_.find(header.copy);
    return stopping_ || found != incoming_.end();
  });
  if (stopping_) return false;
  Incoming& incoming = found->second;
  if (header.bytes == 0 || header.bytes > wire::bulk_piece_bytes ||
      header.offset != incoming.offset_bytes ||
      header.bytes > incoming.bytes - incoming.offset_bytes) {
    return lock.unlock(), end("a bulk piece does not continue its copy");
  }
  *copy = incoming;
  if (!incoming.ring) return true;
  UploadRing& ring = *incoming.ring;
  const auto place = std::find_if(ring.copies.begin(), ring.copies.end(),
                                  [&](const auto& entry) { return entry.id == header.copy; });
  if (place == ring.copies.end() || place->begin + header.offset != ring.received) {
    return lock.unlock(), end("bulk pieces of one stream came out of order");
  }
  if (ring.outstanding_bytes + header.bytes > wire::bulk_window_bytes) {
    return lock.unlock(), end("more bulk bytes of a stream came than its window allows");
  }
  *position = ring.received;
  return true;
}

// Accounts for a piece whose bytes are in the ring.
void Bulk::landed(const wire::BulkHeader& header, const Incoming& copy) {
  const std::lock_guard lock(mutex_);
  const auto incoming = incoming_.find(header.copy);
  incoming->second.offset_bytes += header.bytes;
  if (incoming->second.offset_bytes == incoming->second.bytes) incoming_.erase(incoming);
  if (copy.ring) {
    UploadRing& ring = *copy.ring;
    ring.received += header.bytes;
    ring.outstanding_bytes += header.bytes;
    const auto place = std::find_if(ring.copies.begin(), ring.copies.end(),
                                    [&](const auto& entry) { return entry.id == header.copy; });
    const uint64_t arrived = place->first_piece - 1 + place->pieces_before(ring.received);
    if (!ring.dead) ring.words.store(Words::upload_arrived, static_cast<uint32_t>(arrived));
  } else {
    dropped_credits_.push_back({copy.stream, header.bytes, 0});
  }
  changed_.notify_all();
}

bool Bulk::receive_piece(transport::Channel channel, std::vector<std::byte>& scratch) {
  wire::BulkHeader header;
  if (transport::receive_all(channel, &header, sizeof header) != transport::Status::ok) {
    return end(nullptr);
  }
  Incoming copy{};
  uint64_t position = 0;
  if (!claim(header, &copy, &position)) return false;
  std::byte* to = nullptr;
  size_t first = header.bytes;
  if (copy.ring) {
    const uint64_t offset = position % UploadRing::ring_bytes;
    to = copy.ring->buffer->host() + offset;
    first = std::min<uint64_t>(header.bytes, UploadRing::ring_bytes - offset);
  } else {
    scratch.resize(wire::bulk_piece_bytes);
    to = scratch.data();
  }
  if (transport::receive_all(channel, to, first) != transport::Status::ok) return end(nullptr);
  const size_t rest = header.bytes - first;
  if (rest != 0 &&
      transport::receive_all(channel, copy.ring->buffer->host(), rest) != transport::Status::ok) {
    return end(nullptr);
  }
  landed(header, copy);
  return true;
}

// ---- sending ------------------------------------------------------------------------------------

void Bulk::add_piece(DownloadRing& ring, DownloadRing::Piece piece) {
  const std::lock_guard lock(mutex_);
  ring.pieces.push_back(piece);
  changed_.notify_all();
}

bool Bulk::send_one(std::unique_lock<std::mutex>& lock, const wire::BulkHeader& header,
                    const std::byte* bytes) {
  // Only after its handshake: credit and downloads both follow a command that came later.
  const Connection& connection = *connections_.front();
  changed_.wait(lock, [&] { return connection.ready || stopping_ || ended(); });
  if (!connection.ready) return false;
  const transport::Channel channel(connection.socket.get(), connection.tls.get());
  lock.unlock();
  iovec parts[2] = {{const_cast<wire::BulkHeader*>(&header), sizeof header},
                    {const_cast<std::byte*>(bytes), header.bytes}};
  const transport::Status status =
      transport::send_all(channel, std::span(parts, header.bytes == 0 ? 1 : 2));
  if (status != transport::Status::ok) end(nullptr);
  lock.lock();
  return status == transport::Status::ok;
}

// Credit goes back for what is copied to the device, and at once for what is dropped.
bool Bulk::send_credits(std::unique_lock<std::mutex>& lock, bool* outstanding) {
  bool sent = false;
  const auto rings = uploads_;
  for (const auto& ring : rings) {
    const uint32_t word = ring->words.load(Words::upload_done);
    ring->done_pieces += static_cast<uint32_t>(word - static_cast<uint32_t>(ring->done_pieces));
    uint64_t credit = 0;
    while (!ring->copies.empty()) {
      const UploadRing::Copy& copy = ring->copies.front();
      uint64_t position = std::clamp(ring->received, copy.begin, copy.end);
      if (!copy.discard && !ring->dead) {
        const uint64_t done =
            ring->done_pieces < copy.first_piece ? 0 : ring->done_pieces - copy.first_piece + 1;
        position = std::min(position, copy.position_after(done));
      }
      if (position > ring->credited) {
        credit += position - ring->credited;
        ring->credited = position;
      }
      if (position != copy.end) break;
      ring->copies.pop_front();
    }
    ring->outstanding_bytes -= credit;
    *outstanding |= ring->outstanding_bytes != 0;
    if (credit == 0) continue;
    sent = true;
    if (!send_one(lock, {ring->stream, credit, 0}, nullptr)) return false;
  }
  while (!dropped_credits_.empty()) {
    const wire::BulkHeader credit = dropped_credits_.front();
    dropped_credits_.pop_front();
    sent = true;
    if (!send_one(lock, credit, nullptr)) return false;
  }
  return sent;
}

bool Bulk::send_pieces(std::unique_lock<std::mutex>& lock, bool* outstanding) {
  bool sent = false;
  const auto rings = downloads_;
  for (const auto& ring : rings) {
    if (ring->pieces.empty()) continue;
    const DownloadRing::Piece piece = ring->pieces.front();
    if (!reached(ring->words.load(Words::download_done), static_cast<uint32_t>(piece.number))) {
      *outstanding = true;
      continue;
    }
    ring->pieces.pop_front();
    *outstanding |= !ring->pieces.empty();
    const std::byte* slot =
        ring->buffer->host() + (piece.number - 1) % DownloadRing::slots * wire::bulk_piece_bytes;
    sent = true;
    if (!send_one(lock, {piece.copy, piece.offset_bytes, piece.bytes}, slot)) return false;
    if (!ring->dead) ring->sent.store(piece.number, std::memory_order_release);
    if (ring->wanted.exchange(false)) wake();
  }
  return sent;
}

void Bulk::send() {
  prepare_thread("outboard-bulk-tx");
  std::unique_lock lock(mutex_);
  auto idle_since = std::chrono::steady_clock::now();
  while (!stopping_ && !ended()) {
    bool outstanding = false;
    const bool credited = send_credits(lock, &outstanding);
    const bool sent = send_pieces(lock, &outstanding);
    const auto now = std::chrono::steady_clock::now();
    if (credited || sent) {
      idle_since = now;
      continue;
    }
    if (!outstanding) {
      // A send that failed held no lock: the end may have been announced meanwhile.
      if (stopping_ || ended()) return;
      changed_.wait(lock);
      idle_since = std::chrono::steady_clock::now();
      continue;
    }
    // The words are written by the device: nobody notifies.
    const auto wait =
        std::clamp(std::chrono::duration_cast<std::chrono::microseconds>((now - idle_since) / 16),
                   shortest_wait, longest_wait);
    changed_.wait_for(lock, wait);
  }
}

}  // namespace outboard::worker
