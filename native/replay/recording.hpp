// A recording of one process's command connection (docs/internals/recording.md).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace outboard::replay {

enum class Direction : uint8_t { to_server = 0, from_server = 1, preface = 2, welcome = 3 };

struct Record {
  Direction direction = Direction::to_server;
  uint64_t time_ns = 0;
  std::vector<std::byte> content;  ///< a whole frame with its header, or the bytes as they were
};

/// False, with a line in `error`, where the file is no recording. A last record that is cut off, as
/// a killed process leaves it, is dropped.
bool read_recording(const std::string& path, std::vector<Record>* records, std::string* error);
bool parse_recording(std::span<const std::byte> bytes, std::vector<Record>* records,
                     std::string* error);

}  // namespace outboard::replay
