// Pinned host memory: the words that streams write, and the buffers that copies go through.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

namespace outboard::worker {

struct Driver;

/// Memory of ours that the driver may reach. It is mapped by us and registered, not taken from the
/// driver, so that another thread may still hold it when the context is gone.
class Pinned {
 public:
  /// In the current context. Falls back to memory that is not pinned (copies then are staged by the
  /// driver); null where nothing can be mapped, or where it must be pinned and cannot.
  static std::shared_ptr<Pinned> make(const Driver& driver, size_t bytes, bool must_be_pinned);
  ~Pinned();
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;

  std::byte* host() const { return host_; }
  CUdeviceptr device() const { return device_; }
  size_t bytes() const { return bytes_; }
  /// Before the memory goes while its context lives.
  void unregister(const Driver& driver);

 private:
  Pinned() = default;
  std::byte* host_ = nullptr;
  CUdeviceptr device_ = 0;
  size_t bytes_ = 0;
  bool registered_ = false;
};

/// The words of one stream: 32-bit counters that wrap, compared cyclically.
struct Words {
  enum Word : unsigned { progress, release, upload_arrived, upload_done, download_done, count };

  std::shared_ptr<Pinned> page;
  size_t offset_bytes = 0;

  uint32_t load(Word word) const { return __atomic_load_n(host(word), __ATOMIC_ACQUIRE); }
  void store(Word word, uint32_t value) const {
    __atomic_store_n(host(word), value, __ATOMIC_RELEASE);
  }
  CUdeviceptr device(Word word) const { return page->device() + offset_bytes + 4 * word; }
  uint32_t* host(Word word) const {
    return reinterpret_cast<uint32_t*>(page->host() + offset_bytes) + word;
  }
};

inline bool reached(uint32_t word, uint32_t number) {
  return static_cast<int32_t>(word - number) >= 0;
}

/// One context's pinned memory, reused until the context goes.
class Staging {
 public:
  explicit Staging(const Driver& driver) : driver_(driver) {}

  /// A line of words, all zero; nothing where no memory can be pinned.
  std::optional<Words> take_words();
  void give_words(Words words);
  /// A buffer of exactly that many bytes; null where there is no memory.
  std::shared_ptr<Pinned> take(size_t bytes);
  void give(std::shared_ptr<Pinned> buffer);
  /// Gives back buffers that nobody uses beyond `keep_bytes`. The driver may wait for all work of
  /// the context here, so there must be none.
  void trim(size_t keep_bytes);
  /// Before the context goes; others may still hold the memory.
  void unregister_all();

 private:
  static constexpr size_t line_bytes = 64;
  static constexpr size_t page_bytes = 64 << 10;

  std::shared_ptr<Pinned> make(size_t bytes, bool must_be_pinned);

  const Driver& driver_;
  std::vector<std::weak_ptr<Pinned>> all_;
  std::shared_ptr<Pinned> page_;
  size_t page_used_ = 0;
  std::vector<Words> free_words_;
  std::vector<std::shared_ptr<Pinned>> free_;
};

/// The buffer through which the small copies of one stream go, both ways, in stream order.
class StagingRing {
 public:
  static constexpr size_t ring_bytes = 512 << 10;

  explicit StagingRing(std::shared_ptr<Pinned> buffer) : buffer_(std::move(buffer)) {}

  /// Whether allocate() would find `bytes` in one piece.
  bool room(size_t bytes) const;
  /// Memory that is free again once the stream has completed its first `position` commands.
  std::byte* allocate(size_t bytes, uint64_t position);
  void complete(uint64_t position);
  const std::shared_ptr<Pinned>& buffer() const { return buffer_; }

 private:
  struct Use {
    uint64_t end;
    uint64_t position;
  };
  uint64_t start_of(size_t bytes) const;

  std::shared_ptr<Pinned> buffer_;
  uint64_t head_ = 0;  ///< bytes ever given out, with what was skipped at the end of the buffer
  uint64_t tail_ = 0;
  std::deque<Use> uses_;
};

}  // namespace outboard::worker
