// The session's share page: what all workers of a session hold of each device, counted under one
// lock. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "base/fds.hpp"

namespace outboard::worker {

/// docs/internals/session.md §5 has the layout. Every worker of a session maps the same page.
class Share {
 public:
  static constexpr unsigned max_devices = 16;
  static constexpr unsigned max_slots = 256;
  static constexpr size_t page_bytes = 64 << 10;
  static constexpr uint64_t magic = 0x3147504853424F4F;

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

  /// Takes bytes for this worker; false where the share does not have them.
  bool reserve(unsigned device, uint64_t bytes);
  void release(unsigned device, uint64_t bytes);

  /// Lays an empty page of that many devices into a descriptor; the agent's part, for tests.
  static UniqueFd make(const uint64_t* limits, unsigned devices);

 private:
  uint64_t* field(unsigned slot, unsigned device) const;
  uint64_t sum(unsigned device) const;

  UniqueFd fd_;
  uint64_t* page_ = nullptr;
  unsigned slot_ = 0;
  unsigned devices_ = 0;
};

}  // namespace outboard::worker
