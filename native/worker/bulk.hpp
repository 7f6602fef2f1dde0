// Copies above 64 KiB: their bytes come and go on connections and threads of their own.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/fds.hpp"
#include "transport/tls.hpp"
#include "wire/frame.hpp"
#include "worker/staging.hpp"

namespace outboard::worker {

/// The bytes of one stream's host-to-device copies, one after the other, are a sequence of
/// positions; position p lies at p mod ring_bytes. It is cut into pieces at every multiple of
/// piece_bytes and at the end of a copy; pieces are numbered from 1. The receiving thread writes
/// the number of the last whole piece that arrived into `upload_arrived`, the stream that of the
/// last one copied into `upload_done`. The client's window keeps the ring from overrunning.
struct UploadRing {
  static constexpr uint64_t ring_bytes = wire::bulk_window_bytes;
  static constexpr uint64_t piece_bytes = wire::bulk_piece_bytes;

  struct Copy {
    uint64_t id;
    uint64_t begin;  ///< position
    uint64_t end;
    uint64_t first_piece;
    bool discard = false;  ///< its bytes are awaited, and dropped

    uint64_t pieces_before(uint64_t position) const {
      return position == end ? (end + piece_bytes - 1) / piece_bytes - begin / piece_bytes
                             : position / piece_bytes - begin / piece_bytes;
    }
    uint64_t position_after(uint64_t pieces) const {
      if (pieces == 0) return begin;
      return pieces >= pieces_before(end) ? end : (begin / piece_bytes + pieces) * piece_bytes;
    }
  };

  uint64_t stream = 0;
  std::shared_ptr<Pinned> buffer;
  Words words;

  // Guarded by Bulk's mutex.
  bool dead = false;        ///< its context is: nothing is copied any more
  std::deque<Copy> copies;  ///< announced and not yet credited to their end
  uint64_t announced = 0;   ///< positions
  uint64_t received = 0;
  uint64_t credited = 0;
  uint64_t outstanding_bytes = 0;  ///< received and not credited
  uint64_t next_piece = 1;
  uint64_t done_pieces = 0;  ///< the done word, widened
};

/// Device-to-host pieces of one stream: slots that the stream fills and the sending thread empties.
struct DownloadRing {
  static constexpr uint64_t slots = 8;

  struct Piece {
    uint64_t copy;
    uint64_t offset_bytes;
    uint64_t bytes;
    uint64_t number;  ///< from 1; its slot is (number - 1) mod slots
  };

  std::shared_ptr<Pinned> buffer;
  Words words;
  uint64_t issued = 0;  ///< pieces; the loop's
  std::atomic<uint64_t> sent{0};
  std::atomic<bool> wanted{false};  ///< the loop waits for a slot, or for all to be sent

  // Guarded by Bulk's mutex.
  bool dead = false;
  std::deque<Piece> pieces;  ///< issued and not sent
};

/// What the loop still has to issue of one bulk copy.
struct BulkCopy {
  bool to_device = false;
  uint64_t id = 0;
  CUdeviceptr address = 0;
  uint64_t bytes = 0;
  uint64_t issued_bytes = 0;
  UploadRing::Copy place = {};  ///< of an upload
  /// Called when all pieces are issued, or with why they cannot be; unset: a refusal is reported.
  std::function<void(CUresult)> finished;
};

/// The bulk connections of a session, a receiving thread for each and one thread that sends.
class Bulk {
 public:
  /// `wake_fd` is an eventfd that is written when the loop should look.
  explicit Bulk(int wake_fd) : wake_fd_(wake_fd) {}
  ~Bulk();
  Bulk(const Bulk&) = delete;
  Bulk& operator=(const Bulk&) = delete;

  /// With a key the socket speaks TLS; its handshake is the receiving thread's.
  void add_connection(UniqueFd socket, std::optional<std::array<uint8_t, 32>> key = {});
  bool ended() const { return ended_.load(std::memory_order_acquire); }
  /// What the client did wrong, if it did; read once ended() is true.
  std::string error();

  void open(const std::shared_ptr<UploadRing>& ring);
  void open(const std::shared_ptr<DownloadRing>& ring);
  /// False where bytes are still to come into the ring, which then must stay as it is.
  bool close(const std::shared_ptr<UploadRing>& ring);
  /// False where pieces are still to be sent out of it.
  bool close(const std::shared_ptr<DownloadRing>& ring);
  /// The ring's context is dead: what is announced is received and dropped, nothing more is sent.
  void kill(UploadRing& ring);
  void kill(DownloadRing& ring);

  /// A copy whose bytes will come. False where its number is taken already.
  bool announce(const std::shared_ptr<UploadRing>& ring, uint64_t copy, uint64_t bytes);
  /// The same for a copy that has no stream here: its bytes are dropped.
  bool announce_dropped(uint64_t stream, uint64_t copy, uint64_t bytes);
  /// Where the bytes of an announced copy lie.
  UploadRing::Copy place(UploadRing& ring, uint64_t copy);
  void discard(UploadRing& ring, uint64_t copy);
  /// Lets the stream past all that it waits for, although the bytes did not come.
  void release_waits(UploadRing& ring);
  void add_piece(DownloadRing& ring, DownloadRing::Piece piece);

 private:
  struct Incoming {
    std::shared_ptr<UploadRing> ring;  ///< null: dropped
    uint64_t stream;
    uint64_t offset_bytes;
    uint64_t bytes;
  };
  struct Connection {
    UniqueFd socket;
    std::unique_ptr<transport::Tls> tls;
    bool ready = false;  ///< under mutex_: may be sent on
    std::thread receiver;
  };

  void receive(Connection* connection, const std::optional<std::array<uint8_t, 32>>& key);
  bool receive_piece(transport::Channel channel, std::vector<std::byte>& scratch);
  bool claim(const wire::BulkHeader& header, Incoming* copy, uint64_t* position);
  void landed(const wire::BulkHeader& header, const Incoming& copy);
  bool end(const char* error);
  void send();
  bool send_credits(std::unique_lock<std::mutex>& lock, bool* outstanding);
  bool send_pieces(std::unique_lock<std::mutex>& lock, bool* outstanding);
  bool send_one(std::unique_lock<std::mutex>& lock, const wire::BulkHeader& header,
                const std::byte* bytes);
  void wake();

  int wake_fd_;
  std::atomic<bool> ended_{false};
  std::mutex mutex_;
  std::condition_variable changed_;  ///< announced, issued, received, connected, stopping
  bool stopping_ = false;
  std::string error_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::thread sender_;
  std::vector<std::shared_ptr<UploadRing>> uploads_;
  std::vector<std::shared_ptr<DownloadRing>> downloads_;
  std::unordered_map<uint64_t, Incoming> incoming_;  ///< by copy
  std::deque<wire::BulkHeader> dropped_credits_;
};

}  // namespace outboard::worker
