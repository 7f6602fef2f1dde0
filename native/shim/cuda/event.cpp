// Events: records by the stream's count, so that what is known complete is answered here.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/event.hpp"

#include "generated/shim_api.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

constexpr unsigned known_flags =
    CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;

CUresult enter(CUevent value, Event** event) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  *event = find(value);
  if (*event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return (*event)->context != context ? check((*event)->context) : CUDA_SUCCESS;
}

// The stream of the latest record, if it still exists.
Stream* stream_of(const Event* event) {
  return streams.find_id(event->stream.load(std::memory_order_acquire));
}

bool known_complete(const Event* event) {
  if (event->interprocess()) return false;
  if (!event->recorded.load(std::memory_order_acquire)) return true;
  const Stream* stream = stream_of(event);
  return stream != nullptr && stream->progress.complete.load(std::memory_order_acquire) >=
                                  event->count.load(std::memory_order_relaxed);
}

}  // namespace

CUresult record_event(Event* event, Stream* stream, unsigned flags) {
  if (flags == CU_EVENT_RECORD_EXTERNAL) {
    // A node that records the event at every launch.
    if (!is_captured(stream)) return CUDA_ERROR_INVALID_VALUE;
    if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
    return send(stream,
                wire::command::EventRecord{
                    .stream = stream->head.id(), .event = event->head.id(), .flags = flags});
  }
  if (const CUresult result = note_record(stream, event); result != CUDA_SUCCESS) return result;
  uint64_t count = 0;
  CUresult result =
      send(stream,
           wire::command::EventRecord{
               .stream = stream->head.id(), .event = event->head.id(), .flags = flags},
           &count);
  if (result == CUDA_SUCCESS && event->interprocess() && !is_captured(stream)) {
    // Whoever hears of the record next may be another process: by then it is in the stream.
    client::Answer<wire::command::EventIssued> answer;
    result = call(stream->context, wire::command::EventIssued{.event = event->head.id()}, &answer);
  }
  if (result != CUDA_SUCCESS || event->capture.load(std::memory_order_relaxed) != 0) {
    event->recorded.store(true, std::memory_order_release);
    return result;
  }
  event->count.store(count, std::memory_order_relaxed);
  event->origin.store(Event::Origin::stream, std::memory_order_relaxed);
  event->stream.store(stream->head.id(), std::memory_order_release);
  event->recorded.store(true, std::memory_order_release);
  return CUDA_SUCCESS;
}

CUresult follow(Stream* stream, Stream* other) {
  Event* event = events.take();
  if (event == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  const uint64_t id = event->head.id();
  CUresult result = send(other->context,
                         wire::command::EventCreate{.event = id, .flags = CU_EVENT_DISABLE_TIMING});
  if (result == CUDA_SUCCESS) {
    result = send(other, wire::command::EventRecord{.stream = other->head.id(), .event = id});
  }
  if (result == CUDA_SUCCESS) {
    result = send(stream, wire::command::StreamWaitEvent{.stream = stream->head.id(), .event = id});
  }
  // Its record lives as long as somebody waits for it.
  send(other->context, wire::command::EventDestroy{.event = id});
  events.give(event);
  return result;
}

CUresult cuEventCreate(CUevent* phEvent, unsigned int Flags) {
  Context* context = nullptr;
  if (const CUresult result = shim::enter(&context); result != CUDA_SUCCESS) return result;
  if (phEvent == nullptr || (Flags & ~known_flags) != 0) return CUDA_ERROR_INVALID_VALUE;
  if ((Flags & CU_EVENT_INTERPROCESS) != 0 && (Flags & CU_EVENT_DISABLE_TIMING) == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Event* event = events.take();
  if (event == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  event->context = context;
  event->flags = Flags;
  event->recorded.store(event->interprocess());  // maybe by another process
  const CUresult result =
      send(context, wire::command::EventCreate{.event = event->head.id(), .flags = Flags});
  if (result != CUDA_SUCCESS) {
    events.give(event);
    return result;
  }
  *phEvent = handle(event);
  return CUDA_SUCCESS;
}

CUresult cuEventDestroy_v2(CUevent hEvent) {
  if (const CUresult result = shim::enter(); result != CUDA_SUCCESS) return result;
  Event* event = find(hEvent);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  Context* context = event->context;
  send(context, wire::command::EventDestroy{.event = event->head.id()});
  events.give(event);
  return check(context);
}

CUresult cuEventRecordWithFlags(CUevent hEvent, CUstream hStream, unsigned int flags) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  Event* event = find(hEvent);
  if (event == nullptr || event->context != stream->context) return CUDA_ERROR_INVALID_HANDLE;
  if ((flags & ~CU_EVENT_RECORD_EXTERNAL) != 0) return CUDA_ERROR_INVALID_VALUE;
  return record_event(event, stream, flags);
}

CUresult cuEventRecord(CUevent hEvent, CUstream hStream) {
  return shim::cuEventRecordWithFlags(hEvent, hStream, 0);
}

CUresult cuEventQuery(CUevent hEvent) {
  Event* event = nullptr;
  if (const CUresult result = enter(hEvent, &event); result != CUDA_SUCCESS) return result;
  if (const CUresult result = check_event_unsafe(event); result != CUDA_SUCCESS) return result;
  if (known_complete(event)) return fetch_views();
  if (const CUresult result = refresh_views(); result != CUDA_SUCCESS) return result;
  Stream* stream = stream_of(event);
  const uint64_t count = event->count.load();
  const Event::Origin origin = event->origin.load();
  if (origin == Event::Origin::graph_with_copies && stream != nullptr) {
    const CUresult result = shim::cuStreamQuery(handle(stream));
    return stream->progress.complete.load() >= count ? fetch_views() : result;
  }
  client::Answer<wire::command::EventQuery> answer;
  const CUresult result =
      call(event->context, wire::command::EventQuery{.event = event->head.id()}, &answer);
  if (result != CUDA_SUCCESS || stream == nullptr) return result;
  if (origin == Event::Origin::graph) return fetch_views();
  event->context->server->copies().report(&stream->progress, count);
  return stream->progress.complete.load() >= count ? fetch_views() : CUDA_ERROR_NOT_READY;
}

CUresult cuEventSynchronize(CUevent hEvent) {
  Event* event = nullptr;
  if (const CUresult result = enter(hEvent, &event); result != CUDA_SUCCESS) return result;
  if (const CUresult result = check_event_unsafe(event); result != CUDA_SUCCESS) return result;
  if (known_complete(event)) return fetch_views();
  if (const CUresult result = refresh_views(); result != CUDA_SUCCESS) return result;
  Stream* stream = stream_of(event);
  const uint64_t count = event->count.load();
  const Event::Origin origin = event->origin.load();
  if (origin == Event::Origin::graph_with_copies && stream != nullptr) {
    return shim::cuStreamSynchronize(handle(stream));
  }
  client::Answer<wire::command::EventSynchronize> answer;
  const CUresult result =
      call(event->context, wire::command::EventSynchronize{.event = event->head.id()}, &answer);
  if (result != CUDA_SUCCESS) return result;
  if (stream != nullptr && origin == Event::Origin::stream) {
    event->context->server->copies().report(&stream->progress, count);
    if (!event->context->server->copies().wait(&stream->progress, count)) {
      return CUDA_ERROR_DEVICE_UNAVAILABLE;
    }
  }
  if (const CUresult fetched = fetch_views(); fetched != CUDA_SUCCESS) return fetched;
  return check(event->context);
}

CUresult cuEventElapsedTime_v2(float* pMilliseconds, CUevent hStart, CUevent hEnd) {
  Event *start = nullptr, *end = nullptr;
  if (const CUresult result = enter(hStart, &start); result != CUDA_SUCCESS) return result;
  if (const CUresult result = enter(hEnd, &end); result != CUDA_SUCCESS) return result;
  if (pMilliseconds == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING) != 0 || !start->recorded.load() ||
      !end->recorded.load() || start->context != end->context) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  if (const CUresult result = check_event_unsafe(start); result != CUDA_SUCCESS) return result;
  if (const CUresult result = check_event_unsafe(end); result != CUDA_SUCCESS) return result;
  client::Answer<wire::command::EventElapsedTime> answer;
  const CUresult result = call(
      start->context,
      wire::command::EventElapsedTime{.start = start->head.id(), .end = end->head.id()}, &answer);
  if (result == CUDA_SUCCESS) *pMilliseconds = answer.reply.milliseconds;
  return result;
}

}  // namespace outboard::shim
