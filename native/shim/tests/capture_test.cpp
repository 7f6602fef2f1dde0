// The rules of stream capture, sentence by sentence.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/capture.hpp"

#include <doctest/doctest.h>

#include <thread>

#include "shim/cuda/objects.hpp"
#include "shim/cuda/runtime.hpp"

using namespace outboard::shim;

namespace {

// A context with its legacy stream, two blocking streams and an event; nothing is connected.
struct Fixture {
  Fixture() {
    context = contexts.take();
    for (Stream** stream : {&legacy, &a, &b, &independent}) {
      *stream = streams.take();
      (*stream)->context = context;
    }
    legacy->legacy = true;
    independent->flags = CU_STREAM_NON_BLOCKING;
    context->legacy = legacy;
    event = events.take();
    event->context = context;
    thread_state.capture_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  }
  ~Fixture() {
    for (Stream* stream : {a, b, independent}) {
      if (stream->capture.load() != nullptr) ended(stream);
    }
    for (Stream* stream : {legacy, a, b, independent}) streams.give(stream);
    events.give(event);
    contexts.give(context);
  }
  CUstreamCaptureStatus status(Stream* stream) const {
    CUstreamCaptureStatus value = CU_STREAM_CAPTURE_STATUS_NONE;
    uint64_t id = 0;
    capture_info(stream, &value, &id);
    return value;
  }
  CUresult end(Stream* stream) const {
    bool ends = false;
    const CUresult result = check_end(stream, &ends);
    if (ends) ended(stream);
    return result;
  }
  Context* context;
  Stream *legacy, *a, *b, *independent;
  Event* event;
};

constexpr auto global = CU_STREAM_CAPTURE_MODE_GLOBAL;
constexpr auto thread_local_mode = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
constexpr auto relaxed = CU_STREAM_CAPTURE_MODE_RELAXED;

}  // namespace

TEST_CASE_FIXTURE(Fixture, "the legacy stream cannot be captured, a captured stream not again") {
  CHECK(check_begin(legacy, global) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  CHECK(check_begin(a, global) == CUDA_SUCCESS);
  begun(a, global, 1);
  CHECK(check_begin(a, global) == CUDA_ERROR_ILLEGAL_STATE);
}

TEST_CASE_FIXTURE(Fixture, "work goes in and the end is clean") {
  begun(a, global, 77);
  CHECK(status(a) == CU_STREAM_CAPTURE_STATUS_ACTIVE);
  CHECK(status(b) == CU_STREAM_CAPTURE_STATUS_NONE);
  CHECK(note_work(a) == CUDA_SUCCESS);
  CHECK(end(a) == CUDA_SUCCESS);
  CHECK(status(a) == CU_STREAM_CAPTURE_STATUS_NONE);
  CHECK(captures_active == 0);
}

TEST_CASE_FIXTURE(Fixture, "a fork that is joined again is whole") {
  begun(a, global, 1);
  CHECK(note_work(a) == CUDA_SUCCESS);
  CHECK(note_record(a, event) == CUDA_SUCCESS);
  CHECK(note_wait(b, event) == CUDA_SUCCESS);
  CHECK(status(b) == CU_STREAM_CAPTURE_STATUS_ACTIVE);
  CHECK(note_work(b) == CUDA_SUCCESS);
  CHECK(note_record(b, event) == CUDA_SUCCESS);
  CHECK(note_wait(a, event) == CUDA_SUCCESS);
  CHECK(end(a) == CUDA_SUCCESS);
  CHECK(status(b) == CU_STREAM_CAPTURE_STATUS_NONE);
}

TEST_CASE_FIXTURE(Fixture, "work of a fork that is not joined is 904") {
  begun(a, global, 1);
  CHECK(note_record(a, event) == CUDA_SUCCESS);
  CHECK(note_wait(b, event) == CUDA_SUCCESS);
  CHECK(note_record(b, event) == CUDA_SUCCESS);
  CHECK(note_work(b) == CUDA_SUCCESS);  // after the record that is joined
  CHECK(note_wait(a, event) == CUDA_SUCCESS);
  CHECK(end(a) == CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
  CHECK(captures_active == 0);
}

TEST_CASE_FIXTURE(Fixture, "a capture ends in the stream where it began") {
  begun(a, global, 1);
  note_record(a, event);
  note_wait(b, event);
  CHECK(end(b) == CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
  CHECK(end(independent) == CUDA_ERROR_ILLEGAL_STATE);
}

TEST_CASE_FIXTURE(Fixture, "a capture ends in its thread unless it is relaxed") {
  begun(a, global, 1);
  CUresult elsewhere = CUDA_SUCCESS;
  std::thread([&] { elsewhere = end(a); }).join();
  CHECK(elsewhere == CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
  CHECK(end(a) == CUDA_SUCCESS);
  begun(a, relaxed, 2);
  std::thread([&] { elsewhere = end(a); }).join();
  CHECK(elsewhere == CUDA_SUCCESS);
}

TEST_CASE_FIXTURE(Fixture, "an unsafe call during a global capture is 900 in every thread") {
  begun(a, global, 1);
  CUresult elsewhere = CUDA_SUCCESS;
  std::thread([&] { elsewhere = check_unsafe(); }).join();
  CHECK(elsewhere == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  CHECK(status(a) == CU_STREAM_CAPTURE_STATUS_INVALIDATED);
  CHECK(note_work(a) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  CHECK(end(a) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

TEST_CASE_FIXTURE(Fixture, "a thread-local capture forbids its own thread alone") {
  begun(a, thread_local_mode, 1);
  CUresult elsewhere = CUDA_ERROR_UNKNOWN;
  std::thread([&] { elsewhere = check_unsafe(); }).join();
  CHECK(elsewhere == CUDA_SUCCESS);
  CHECK(check_unsafe() == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

TEST_CASE_FIXTURE(Fixture, "a thread that exchanged its mode for a laxer one may") {
  begun(a, global, 1);
  CUresult elsewhere = CUDA_ERROR_UNKNOWN;
  std::thread([&] {
    thread_state.capture_mode = thread_local_mode;
    elsewhere = check_unsafe();
  }).join();
  CHECK(elsewhere == CUDA_SUCCESS);
  thread_state.capture_mode = relaxed;
  CHECK(check_unsafe() == CUDA_SUCCESS);
  CHECK(end(a) == CUDA_SUCCESS);
}

TEST_CASE_FIXTURE(Fixture, "asking about a captured stream is 900") {
  begun(a, global, 1);
  CHECK(check_stream_unsafe(a) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  CHECK(end(a) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

TEST_CASE_FIXTURE(Fixture, "the legacy stream beside a captured blocking stream is 906") {
  begun(a, relaxed, 1);
  CHECK(note_work(legacy) == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  CHECK(end(a) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  begun(independent, relaxed, 2);
  CHECK(note_work(legacy) == CUDA_SUCCESS);
  CHECK(end(independent) == CUDA_SUCCESS);
}

TEST_CASE_FIXTURE(Fixture, "a captured stream may not wait for work outside: 905") {
  CHECK(note_record(b, event) == CUDA_SUCCESS);
  begun(a, global, 1);
  CHECK(note_wait(a, event) == CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
}

TEST_CASE_FIXTURE(Fixture, "two captures do not merge: 902") {
  begun(a, global, 1);
  begun(b, global, 2);
  CHECK(note_record(a, event) == CUDA_SUCCESS);
  CHECK(note_wait(b, event) == CUDA_ERROR_STREAM_CAPTURE_MERGE);
  CHECK(end(a) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  CHECK(end(b) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

TEST_CASE_FIXTURE(Fixture, "the host may not ask about a captured event: 907") {
  begun(a, global, 1);
  CHECK(note_record(a, event) == CUDA_SUCCESS);
  CHECK(check_event_unsafe(event) == CUDA_ERROR_CAPTURED_EVENT);
  CHECK(end(a) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  CHECK(check_event_unsafe(event) == CUDA_ERROR_CAPTURED_EVENT);
  CHECK(note_record(b, event) == CUDA_SUCCESS);
  CHECK(check_event_unsafe(event) == CUDA_SUCCESS);
}

TEST_CASE_FIXTURE(Fixture, "destroying a captured stream leaves nothing behind") {
  begun(a, global, 1);
  note_record(a, event);
  note_wait(b, event);
  abandon(b);
  CHECK(b->capture.load() == nullptr);
  CHECK(status(a) == CU_STREAM_CAPTURE_STATUS_INVALIDATED);
  abandon(a);
  CHECK(captures_active == 0);
}
