// The layout of frames, commands, messages and bulk pieces. docs/internals/wire.md has the reasons.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace outboard::wire {

inline constexpr size_t max_frame_bytes = 1u << 20;  ///< payload of one frame
inline constexpr size_t max_inline_bytes =
    64u << 10;  ///< a copy's bytes that ride in a command or message
inline constexpr size_t max_image_piece_bytes = 512u << 10;
inline constexpr size_t bulk_piece_bytes = 1u << 20;  ///< largest piece on a bulk connection
inline constexpr size_t bulk_window_bytes =
    8u << 20;  ///< H2D bytes in flight per CUDA stream, see wire.md §5
inline constexpr size_t reply_part_bytes = 512u << 10;
inline constexpr size_t max_reply_bytes = 512u << 20;  ///< of all parts together
inline constexpr uint32_t max_objects = 1u << 20;      ///< per object table and client

enum class FrameKind : uint16_t {
  hello = 1,        ///< client → worker, JSON; first frame, once more after each refused window
  batch = 2,        ///< client → worker: commands; worker → client: messages
  acknowledge = 3,  ///< no payload
  goodbye = 4,      ///< either side ends in order; payload: one line of text, may be empty
};

/// Before every frame on the command connection, both ways. Numbers start at 1 and have no gaps.
struct FrameHeader {
  uint32_t payload_bytes = 0;  ///< at most max_frame_bytes, a multiple of 8 for batches
  FrameKind kind = FrameKind::batch;
  uint16_t reserved = 0;
  uint64_t number = 0;
  uint64_t acknowledged =
      0;  ///< highest number of the other side that is executed, its replies stored
};
static_assert(sizeof(FrameHeader) == 24);

/// Before every command in a batch.
struct CommandHeader {
  uint32_t payload_bytes = 0;  ///< a multiple of 8
  uint16_t op = 0;
  uint16_t lane = 0;     ///< 0: one lane for now
  uint32_t context = 0;  ///< index of the current context in the context table; its generation is
                         ///< in commands that name it
  uint32_t request = 0;  ///< 0: no answer wanted
};
static_assert(sizeof(CommandHeader) == 16);

enum class MessageKind : uint16_t {
  reply = 1,     ///< `subject` = request, `result`, payload = the command's Reply
  copied = 2,    ///< bytes of a CopyToHost of at most max_inline_bytes; `subject` = copy. With a
                 ///< `result` that is an error: the copy's bytes, of any length, will not come
  progress = 3,  ///< payload: Progress records; comes before the reply that it belongs to
  host_function = 4,  ///< `subject` = function: run it, then send HostFunctionDone. Of a graph's
                      ///< node the subject is this call's number, the payload the function's (u64)
  refused = 5,     ///< an async command failed: `subject` = op, `result`; payload: u64 context id
  fatal = 6,       ///< the context is dead: `result` sticks; payload: u64 context id
  text = 7,        ///< what kernels say; `subject` = TextTo
  reply_part = 8,  ///< `subject` = request: what comes before the payload of its reply, which is
                   ///< too large for one frame
  released = 9,    ///< no graph refers to the client's object `subject` any more: one for every
                   ///< GraphRetain and every host node's function
};

/// Which of the program's streams gets a text: one has device printf, the other failed assertions
/// and what else a driver says of a dead context.
enum class TextTo : uint64_t { standard_output = 0, standard_error = 1 };

/// Before every message in a worker's batch.
struct MessageHeader {
  uint32_t payload_bytes =
      0;  ///< without padding; the next header follows at the next multiple of 8
  MessageKind kind = MessageKind::reply;
  uint16_t reserved = 0;
  uint64_t subject = 0;
  int32_t result = 0;  ///< a CUresult
  uint32_t zero = 0;
};
static_assert(sizeof(MessageHeader) == 24);

/// "All of the first `completed` commands ordered on this stream are done."
struct Progress {
  uint64_t stream = 0;  ///< id
  uint64_t completed = 0;
};

/// Before every piece on a bulk connection, both ways. Client → worker: bytes of a
/// CopyToDeviceBulk. Worker → client: bytes of a CopyToHost(Sync), or, with `bytes` 0, credit:
/// `offset` more bytes of stream `copy` (an id) may be sent.
struct BulkHeader {
  uint64_t copy = 0;
  uint64_t offset = 0;
  uint64_t bytes = 0;  ///< at most bulk_piece_bytes
};
static_assert(sizeof(BulkHeader) == 24);

/// What the worker says first on a connection for shared memory.
inline constexpr char memory_ready[8] = {'O', 'U', 'T', 'M', 1, 0, 0, 0};

/// Walks the commands of a batch. `next` returns false at the end and where a length is wrong; `ok`
/// tells which.
template <typename Header>
class BatchReader {
 public:
  explicit BatchReader(std::span<const std::byte> batch) : left_(batch) {}
  bool next(Header* header, std::span<const std::byte>* payload) {
    if (left_.empty()) return false;
    if (left_.size() < sizeof(Header)) return fail();
    __builtin_memcpy(header, left_.data(), sizeof(Header));
    const size_t whole = (size_t{header->payload_bytes} + 7) & ~size_t{7};
    if (whole > left_.size() - sizeof(Header)) return fail();
    *payload = left_.subspan(sizeof(Header), header->payload_bytes);
    left_ = left_.subspan(sizeof(Header) + whole);
    return true;
  }
  bool ok() const { return ok_; }

 private:
  bool fail() {
    ok_ = false;
    left_ = {};
    return false;
  }
  std::span<const std::byte> left_;
  bool ok_ = true;
};

}  // namespace outboard::wire
