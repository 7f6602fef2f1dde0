// Stream capture as the program sees it: modes, members, joins by events, what invalidates.
// SPDX-License-Identifier: Apache-2.0
//
// The worker captures in relaxed mode and knows nothing of the program's threads, so the rules of
// CUDA_ERROR_STREAM_CAPTURE_* are kept here. A capture's streams carry vector clocks: how many
// operations of each member stream lie before the stream's next one. At the end every member's last
// operation must lie before the origin's end, or the capture is unjoined.
#pragma once

#include <cuda.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "shim/cuda/waiting.hpp"

namespace outboard::shim {

struct Context;
struct Event;
struct Graph;
struct Stream;

struct Capture {
  uint64_t id = 0;      ///< the program's, from the worker's driver
  uint64_t number = 0;  ///< ours: never used twice
  Stream* origin = nullptr;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  int thread = 0;          ///< that began it
  Graph* graph = nullptr;  ///< that it makes
  bool into = false;       ///< the program's own
  bool invalidated = false;
  /// The program has changed dependencies itself: who is joined, the driver knows alone.
  bool rearranged = false;
  uint64_t operations = 0;
  struct Member {
    Stream* stream = nullptr;
    std::vector<uint64_t> clock;  ///< by member; the own entry counts its operations
  };
  std::vector<Member> members;
};

/// Captures under way in this process. Zero nearly always: the checks below cost one load then.
extern std::atomic<int> captures_active;

/// A call that would wait, or act outside stream order (allocate, free, query): refused where a
/// mode of a capture under way forbids it, which also invalidates that capture.
CUresult check_unsafe_slow();
inline CUresult check_unsafe() {
  return captures_active.load(std::memory_order_relaxed) == 0 ? CUDA_SUCCESS : check_unsafe_slow();
}

/// A call that waits for, or asks about, this stream.
CUresult check_stream_unsafe_slow(Stream* stream);
inline CUresult check_stream_unsafe(Stream* stream) {
  return captures_active.load(std::memory_order_relaxed) == 0 ? CUDA_SUCCESS
                                                              : check_stream_unsafe_slow(stream);
}

/// A call that waits for everything of a context, or of a part of it.
CUresult check_context_unsafe(const Context* context, const GreenContext* green = nullptr);

/// Work about to be put on a stream: counts it if the stream is captured, refuses it if its capture
/// is invalid or if it would make a captured stream wait (work on the legacy stream).
CUresult note_work_slow(Stream* stream);
inline CUresult note_work(Stream* stream) {
  if (const CUresult result = await_upload(stream); result != CUDA_SUCCESS) [[unlikely]] {
    return result;
  }
  return captures_active.load(std::memory_order_relaxed) == 0 ? CUDA_SUCCESS
                                                              : note_work_slow(stream);
}

/// Whether work put on the stream now is captured.
bool is_captured(const Stream* stream);

/// An event about to be recorded on, or waited for by, a stream.
CUresult note_record(Stream* stream, Event* event);
CUresult note_wait(Stream* stream, Event* event);
/// An event about to be waited for or asked about by the host.
CUresult check_event_unsafe(const Event* event);

CUresult check_begin(Stream* stream, CUstreamCaptureMode mode);
void begun(Stream* stream, CUstreamCaptureMode mode, uint64_t id, Graph* graph = nullptr,
           bool into = false);
/// The graph that the stream's capture makes; null where it is not captured.
Graph* captured_graph(const Stream* stream, bool* into = nullptr);
/// The program has changed what the stream's next node follows.
void rearranged(Stream* stream);
/// What ending the capture that begins in this stream comes to. `*ends`: the worker's capture ends
/// too.
CUresult check_end(Stream* stream, bool* ends);
/// Forgets the capture; its streams are ordinary again.
void ended(Stream* stream);
/// A stream that is destroyed leaves its capture invalid.
void abandon(Stream* stream);

CUresult capture_info(Stream* stream, CUstreamCaptureStatus* status, uint64_t* id);

}  // namespace outboard::shim
