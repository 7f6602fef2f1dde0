// Writes what goes over the command connection to a file, for replaying
// (docs/internals/recording.md). SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "wire/frame.hpp"

namespace outboard::client {

enum class Direction : uint8_t {
  to_server = 0,    ///< a frame
  from_server = 1,  ///< a frame
  preface = 2,      ///< the preface's bytes, its grant and proof blanked
  welcome = 3,      ///< the welcome's bytes
};

/// One file per process. Does nothing unless open() found OUTBOARD_RECORD in the environment.
class Recorder {
 public:
  /// Opens what OUTBOARD_RECORD names (ignored in programs with raised privileges).
  static void open();
  static bool on() { return fd_ >= 0; }
  static void bytes(Direction direction, std::span<const std::byte> content);
  static void frame(Direction direction, wire::FrameKind kind, uint64_t number,
                    uint64_t acknowledged, std::span<const std::byte> payload);

 private:
  static void write(Direction direction, std::span<const std::byte> head,
                    std::span<const std::byte> content);
  static int fd_;
};

}  // namespace outboard::client
