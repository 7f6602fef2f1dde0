// The session's share page: what all workers of a session hold of each device, counted under one
// lock. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/fds.hpp"

namespace outboard::worker {

/// docs/internals/session.md §5 has the layout. Every worker of a session maps the same page.
class Share {
 public:
  static constexpr unsigned max_devices = 16;
  static constexpr unsigned max_slots = 256;
  static constexpr size_t page_bytes = 320 << 10;
  static constexpr size_t usage_at_bytes = 64 << 10;
  static constexpr size_t usage_bytes = 1 << 10;  ///< of one slot
  static constexpr uint64_t magic = 0x3147504853424F4F;

  /// Where the fields of a slot's usage are, in units of 8 bytes; those of devices are a row each.
  struct UsageLayout {
    static constexpr size_t started = 0;    ///< µs since 1970; 0: no program yet
    static constexpr size_t last_call = 1;  ///< µs of CLOCK_MONOTONIC; 0: none yet
    static constexpr size_t pid = 2;
    static constexpr size_t uid = 3;
    static constexpr size_t calls = 8;
    static constexpr size_t busy = 24;        ///< µs
    static constexpr size_t busy_since = 40;  ///< µs of CLOCK_MONOTONIC; 0: has no work
    static constexpr size_t peak = 56;        ///< bytes
    static constexpr size_t program = 72;
    static constexpr size_t program_bytes = 64;  ///< with the NUL behind the name
  };

  Share() = default;
  Share(const Share&) = delete;
  Share& operator=(const Share&) = delete;
  ~Share();

  /// Maps the agent's page. Returns false and says why where it is not one.
  bool open(UniqueFd page, unsigned slot, std::string* error);

  uint64_t limit(unsigned device) const;
  /// What all workers of the session hold.
  uint64_t held(unsigned device) const;
  /// What this worker holds.
  uint64_t own(unsigned device) const;
  /// This worker's record of usage; null before `open`.
  uint64_t* usage() const;

  /// Takes bytes for this worker; false where the share does not have them.
  bool reserve(unsigned device, uint64_t bytes);
  void release(unsigned device, uint64_t bytes);
  /// Counts what this worker holds already, within the limit or not.
  void count(unsigned device, uint64_t bytes);

  /// Lays an empty page of that many devices into a descriptor; the agent's part, for tests.
  static UniqueFd make(const uint64_t* limits, unsigned devices);

 private:
  uint64_t* field(unsigned slot, unsigned device) const;
  uint64_t sum(unsigned device) const;
  void add(unsigned device, uint64_t bytes);

  UniqueFd fd_;
  uint64_t* page_ = nullptr;
  unsigned slot_ = 0;
  unsigned devices_ = 0;
};

/// Bytes of memory that several may hold: released with the last of them. What was imported counts
/// once its owner is gone.
struct Claim {
  Claim(Share& page, unsigned of, uint64_t amount, bool counts)
      : share(page), device(of), bytes(amount), counted(counts) {}
  ~Claim() {
    if (counted) share.release(device, bytes);
    if (ended) ended();
  }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;
  void count() {
    if (!counted) share.count(device, bytes);
    counted = true;
  }

  Share& share;
  unsigned device;
  uint64_t bytes;
  bool counted;
  std::function<void()> ended;
};

}  // namespace outboard::worker
