// Reading recordings.
// SPDX-License-Identifier: Apache-2.0
#include "replay/recording.hpp"

#include <cstring>
#include <fstream>
#include <iterator>

#include "wire/frame.hpp"

namespace outboard::replay {
namespace {

constexpr char magic[8] = {'O', 'B', 'R', 'E', 'C', '1', '\n', 0};
constexpr size_t most_record_bytes = wire::max_frame_bytes + sizeof(wire::FrameHeader);

struct RecordHeader {
  uint8_t direction;
  uint8_t zero[3];
  uint32_t bytes;
  uint64_t time_ns;
};
static_assert(sizeof(RecordHeader) == 16);

bool whole_frame(std::span<const std::byte> content) {
  wire::FrameHeader header;
  if (content.size() < sizeof header) return false;
  std::memcpy(&header, content.data(), sizeof header);
  return header.payload_bytes == content.size() - sizeof header;
}

}  // namespace

bool parse_recording(std::span<const std::byte> bytes, std::vector<Record>* records,
                     std::string* error) {
  if (bytes.size() < sizeof magic || std::memcmp(bytes.data(), magic, sizeof magic) != 0) {
    *error = "it does not begin as a recording does";
    return false;
  }
  bytes = bytes.subspan(sizeof magic);
  while (bytes.size() >= sizeof(RecordHeader)) {
    RecordHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.direction > static_cast<uint8_t>(Direction::welcome) ||
        header.bytes > most_record_bytes) {
      *error = "record " + std::to_string(records->size()) + " is of an unknown kind or too long";
      return false;
    }
    bytes = bytes.subspan(sizeof header);
    if (header.bytes > bytes.size()) return true;
    Record record;
    record.direction = static_cast<Direction>(header.direction);
    record.time_ns = header.time_ns;
    record.content.assign(bytes.begin(), bytes.begin() + header.bytes);
    const bool frame =
        record.direction == Direction::to_server || record.direction == Direction::from_server;
    if (frame && !whole_frame(record.content)) {
      *error = "record " + std::to_string(records->size()) + " is not one frame";
      return false;
    }
    records->push_back(std::move(record));
    bytes = bytes.subspan(header.bytes);
  }
  return true;
}

bool read_recording(const std::string& path, std::vector<Record>* records, std::string* error) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    *error = "it cannot be opened";
    return false;
  }
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return parse_recording(std::as_bytes(std::span(bytes)), records, error);
}

}  // namespace outboard::replay
