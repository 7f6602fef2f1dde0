// Memory of this process that a server on the same host uses as its own: the same pages.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>

#include "base/fds.hpp"
#include "client/windows.hpp"

namespace outboard::client {

/// The way on which one server is handed memory. Where there is none, which is nobody's fault, the
/// program's memory is copied.
class HostMemory {
 public:
  /// `open` connects, or returns an empty descriptor.
  explicit HostMemory(std::function<UniqueFd()> open) : open_(std::move(open)) {}

  /// Whether the server takes memory. Connects when it is asked first.
  bool ready();
  /// Sends the memory behind a descriptor, which is to lie at `address` there too. The command that
  /// names the address may follow at once.
  bool hand_over(uint64_t address, const UniqueFd& memory);

 private:
  std::function<UniqueFd()> open_;
  std::mutex mutex_;
  bool tried_ = false;
  UniqueFd socket_;
};

/// Maps memory that can be handed over at a reserved place; it is there in full, so that no later
/// access can find the machine's memory used up. Empty where there is not so much.
UniqueFd map_pages(const Window& place);

}  // namespace outboard::client
