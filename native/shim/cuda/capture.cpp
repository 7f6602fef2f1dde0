// The rules of stream capture.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/capture.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <list>

#include "generated/shim_api.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {

constinit std::atomic<int> captures_active{0};

namespace {

constinit std::mutex mutex;

std::list<Capture>& active() {
  static auto* const list = new std::list<Capture>;
  return *list;
}

int thread_id() {
  static thread_local constinit int id = 0;
  if (id == 0) id = static_cast<int>(::syscall(SYS_gettid));
  return id;
}

size_t member_of(Capture* capture, const Stream* stream) {
  const auto found = std::find_if(capture->members.begin(), capture->members.end(),
                                  [stream](const auto& member) { return member.stream == stream; });
  return static_cast<size_t>(found - capture->members.begin());
}

uint64_t& own_clock(Capture* capture, size_t member) {
  std::vector<uint64_t>& clock = capture->members[member].clock;
  if (clock.size() <= member) clock.resize(member + 1);
  return clock[member];
}

void merge(std::vector<uint64_t>* into, const std::vector<uint64_t>& from) {
  if (into->size() < from.size()) into->resize(from.size());
  for (size_t i = 0; i < from.size(); ++i) (*into)[i] = std::max((*into)[i], from[i]);
}

CUresult invalidate(Capture* capture, CUresult result) {
  capture->invalidated = true;
  return result;
}

// Whether the stream is another one that this legacy stream waits for.
bool held_by_legacy(const Stream* stream, const Stream* legacy) {
  return stream->context == legacy->context && stream->green == legacy->green && !stream->legacy &&
         (stream->flags & CU_STREAM_NON_BLOCKING) == 0;
}

}  // namespace

CUresult check_unsafe_slow() {
  const CUstreamCaptureMode mode = thread_state.capture_mode;
  if (mode == CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_SUCCESS;
  const std::lock_guard guard(mutex);
  bool refused = false;
  for (Capture& capture : active()) {
    if (capture.mode == CU_STREAM_CAPTURE_MODE_RELAXED) continue;
    const bool mine = capture.thread == thread_id();
    const bool global =
        capture.mode == CU_STREAM_CAPTURE_MODE_GLOBAL && mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
    if (!mine && !global) continue;
    capture.invalidated = true;
    refused = true;
  }
  return refused ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}

CUresult check_stream_unsafe_slow(Stream* stream) {
  {
    const std::lock_guard guard(mutex);
    if (Capture* capture = stream->capture.load()) {
      return invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    if (stream->legacy) {
      for (Capture& capture : active()) {
        for (const Capture::Member& member : capture.members) {
          if (held_by_legacy(member.stream, stream)) {
            return invalidate(&capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
          }
        }
      }
    }
  }
  return CUDA_SUCCESS;
}

CUresult check_context_unsafe(const Context* context, const GreenContext* green) {
  if (captures_active.load(std::memory_order_relaxed) == 0) return CUDA_SUCCESS;
  const std::lock_guard guard(mutex);
  CUresult result = CUDA_SUCCESS;
  for (Capture& capture : active()) {
    for (const Capture::Member& member : capture.members) {
      if (member.stream->context == context &&
          (green == nullptr || member.stream->green == green)) {
        result = invalidate(&capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
      }
    }
  }
  return result;
}

bool is_captured(const Stream* stream) {
  return captures_active.load(std::memory_order_relaxed) != 0 && stream->capture.load() != nullptr;
}

CUresult note_work_slow(Stream* stream) {
  const std::lock_guard guard(mutex);
  if (Capture* capture = stream->capture.load()) {
    if (capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    ++own_clock(capture, member_of(capture, stream));
    ++capture->operations;
    return CUDA_SUCCESS;
  }
  if (!stream->legacy) return CUDA_SUCCESS;
  for (Capture& capture : active()) {
    for (const Capture::Member& member : capture.members) {
      if (held_by_legacy(member.stream, stream)) {
        return invalidate(&capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
      }
    }
  }
  return CUDA_SUCCESS;
}

CUresult note_record(Stream* stream, Event* event) {
  if (captures_active.load(std::memory_order_relaxed) == 0) {
    event->capture.store(0, std::memory_order_relaxed);
    return CUDA_SUCCESS;
  }
  if (!is_captured(stream)) {
    if (const CUresult result = note_work_slow(stream); result != CUDA_SUCCESS) return result;
    const std::lock_guard guard(mutex);
    event->capture.store(0);
    return CUDA_SUCCESS;
  }
  const std::lock_guard guard(mutex);
  Capture* capture = stream->capture.load();
  if (capture == nullptr) return CUDA_SUCCESS;
  if (capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  const size_t member = member_of(capture, stream);
  own_clock(capture, member);
  event->capture.store(capture->number);
  event->clock = capture->members[member].clock;
  return CUDA_SUCCESS;
}

CUresult note_wait(Stream* stream, Event* event) {
  if (captures_active.load(std::memory_order_relaxed) == 0) return CUDA_SUCCESS;
  const std::lock_guard guard(mutex);
  Capture* capture = stream->capture.load();
  const uint64_t number = event->capture.load();
  const auto found = std::find_if(active().begin(), active().end(), [number](const Capture& entry) {
    return number != 0 && entry.number == number;
  });
  Capture* of_event = found != active().end() ? &*found : nullptr;
  if (capture != nullptr && capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (of_event == nullptr) {
    if (number != 0) return CUDA_ERROR_CAPTURED_EVENT;  // of a capture that has ended
    if (capture == nullptr) return CUDA_SUCCESS;
    return invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
  }
  if (of_event->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (capture == nullptr) {
    if (stream->legacy) return invalidate(of_event, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    // The fork: the stream joins the event's capture.
    of_event->members.push_back({stream, {}});
    stream->capture.store(of_event);
    capture = of_event;
  } else if (capture != of_event) {
    invalidate(of_event, CUDA_ERROR_STREAM_CAPTURE_MERGE);
    return invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_MERGE);
  }
  const size_t member = member_of(capture, stream);
  own_clock(capture, member);
  merge(&capture->members[member].clock, event->clock);
  return CUDA_SUCCESS;
}

CUresult check_event_unsafe(const Event* event) {
  if (captures_active.load(std::memory_order_relaxed) == 0 && event->capture.load() == 0) {
    return CUDA_SUCCESS;
  }
  if (event->capture.load() == 0) return check_unsafe();
  const std::lock_guard guard(mutex);
  for (Capture& capture : active()) {
    if (capture.number == event->capture.load()) capture.invalidated = true;
  }
  return CUDA_ERROR_CAPTURED_EVENT;
}

CUresult check_begin(Stream* stream, CUstreamCaptureMode mode) {
  if (mode < CU_STREAM_CAPTURE_MODE_GLOBAL || mode > CU_STREAM_CAPTURE_MODE_RELAXED) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (stream->legacy) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  return is_captured(stream) ? CUDA_ERROR_ILLEGAL_STATE : CUDA_SUCCESS;
}

Graph* captured_graph(const Stream* stream, bool* into) {
  const std::lock_guard guard(mutex);
  const Capture* capture = stream->capture.load();
  if (capture == nullptr) return nullptr;
  if (into != nullptr) *into = capture->into;
  return capture->graph;
}

void rearranged(Stream* stream) {
  const std::lock_guard guard(mutex);
  if (Capture* capture = stream->capture.load()) capture->rearranged = true;
}

void begun(Stream* stream, CUstreamCaptureMode mode, uint64_t id, Graph* graph, bool into) {
  static constinit uint64_t last_number = 0;
  const std::lock_guard guard(mutex);
  Capture& capture = active().emplace_back();
  capture.id = id;
  capture.number = ++last_number;
  capture.origin = stream;
  capture.graph = graph;
  capture.into = into;
  capture.mode = mode;
  capture.thread = thread_id();
  capture.members.push_back({stream, {0}});
  stream->capture.store(&capture);
  captures_active.fetch_add(1);
}

CUresult check_end(Stream* stream, bool* ends) {
  *ends = false;
  const std::lock_guard guard(mutex);
  Capture* capture = stream->capture.load();
  if (capture == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  if (capture->origin != stream) return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != thread_id()) {
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  }
  *ends = true;
  if (capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (capture->rearranged) return CUDA_SUCCESS;
  const std::vector<uint64_t>& end = capture->members.front().clock;
  for (size_t member = 1; member < capture->members.size(); ++member) {
    const uint64_t seen = member < end.size() ? end[member] : 0;
    if (seen < own_clock(capture, member)) return CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  }
  return CUDA_SUCCESS;
}

void ended(Stream* stream) {
  const std::lock_guard guard(mutex);
  Capture* capture = stream->capture.load();
  if (capture == nullptr) return;
  for (const Capture::Member& member : capture->members) member.stream->capture.store(nullptr);
  active().remove_if([capture](const Capture& entry) { return &entry == capture; });
  captures_active.fetch_sub(1);
}

void abandon(Stream* stream) {
  if (stream->capture.load() == nullptr) return;
  {
    const std::lock_guard guard(mutex);
    Capture* capture = stream->capture.load();
    if (capture == nullptr) return;
    capture->invalidated = true;
    if (capture->origin != stream) {
      const size_t member = member_of(capture, stream);
      capture->members[member].stream = capture->origin;  // its place in the clocks stays
      stream->capture.store(nullptr);
      return;
    }
  }
  ended(stream);
}

CUresult capture_info(Stream* stream, CUstreamCaptureStatus* status, uint64_t* id) {
  *status = CU_STREAM_CAPTURE_STATUS_NONE;
  if (captures_active.load(std::memory_order_relaxed) == 0) return CUDA_SUCCESS;
  const std::lock_guard guard(mutex);
  if (const Capture* capture = stream->capture.load()) {
    *status = capture->invalidated ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                   : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    *id = capture->id;
    return CUDA_SUCCESS;
  }
  if (!stream->legacy) return CUDA_SUCCESS;
  for (const Capture& capture : active()) {
    for (const Capture::Member& member : capture.members) {
      if (held_by_legacy(member.stream, stream)) {
        return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
      }
    }
  }
  return CUDA_SUCCESS;
}

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (mode == nullptr || *mode < CU_STREAM_CAPTURE_MODE_GLOBAL ||
      *mode > CU_STREAM_CAPTURE_MODE_RELAXED) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  std::swap(*mode, thread_state.capture_mode);
  return CUDA_SUCCESS;
}

}  // namespace outboard::shim
