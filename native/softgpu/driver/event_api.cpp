// Entry points about events, and the order that they make between streams.
// SPDX-License-Identifier: Apache-2.0
#include "capture.hpp"
#include "event.hpp"
#include "guard.hpp"
#include "printf_text.hpp"
#include "submit.hpp"

namespace softgpu {

HandleTable<Event, CUevent, 3>& events() {
  static auto& table = *new HandleTable<Event, CUevent, 3>;
  return table;
}

}  // namespace softgpu

using namespace softgpu;

namespace {

/// For calls about one event: `call(Context&, std::shared_ptr<Event>)`.
template <class Call>
CUresult with_event(CUevent handle, Call&& call) noexcept {
  return with_context([&](Context& context) -> CUresult {
    std::shared_ptr<Event> event = events().find(handle);
    return event ? call(context, event) : CUDA_ERROR_INVALID_HANDLE;
  });
}

/// An event that was last recorded in a capture has no state that could be asked for.
CUresult refuse_captured(Event& event) {
  std::lock_guard lock(capture_mutex());
  if (!event.capture_nodes.empty() || !event.capture.expired()) return CUDA_ERROR_CAPTURED_EVENT;
  return CUDA_SUCCESS;
}

CUresult record(Context& context, std::shared_ptr<Event>& event, CUstream handle, unsigned flags) {
  std::shared_ptr<Stream> stream;
  if (CUresult r = stream_of(context, handle, &stream); r != CUDA_SUCCESS) return r;
  std::shared_ptr<Context> owner = stream->context.lock();
  if (!owner || event->context.lock() != owner) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capturing.load()) {
    // EXTERNAL: the record is a node of the graph; else it only marks a place in the capture.
    if (flags & CU_EVENT_RECORD_EXTERNAL) return capture_operation(*stream, RecordContent{event});
    return capture_record(*stream, *event);
  }
  if (stream->legacy) {
    if (CUresult r = refuse_legacy(*stream); r != CUDA_SUCCESS) return r;
  }
  {
    std::lock_guard lock(capture_mutex());
    event->capture.reset();
    event->capture_nodes.clear();
  }
  stream->submit(RecordOperation{event->renew()});
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" CUresult cuEventCreate(CUevent* out, unsigned int flags) {
  return with_context([&](Context& context) {
    constexpr unsigned kKnown =
        CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;
    if (out == nullptr || (flags & ~kKnown) != 0) return CUDA_ERROR_INVALID_VALUE;
    auto event = std::make_shared<Event>();
    if (flags & CU_EVENT_INTERPROCESS) {
      if (!(flags & CU_EVENT_DISABLE_TIMING)) return CUDA_ERROR_INVALID_VALUE;
      event->shared = SharedEvent::make();
      if (!event->shared) return CUDA_ERROR_OUT_OF_MEMORY;
    }
    event->context = context.weak_from_this();
    event->flags = flags;
    event->handle = events().insert(event);
    *out = event->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuEventDestroy_v2(CUevent handle) {
  return with_context(
      [&](Context&) { return events().erase(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE; });
}
extern "C" CUresult cuEventDestroy(CUevent handle) { return cuEventDestroy_v2(handle); }

extern "C" CUresult cuEventRecordWithFlags(CUevent handle, CUstream stream, unsigned int flags) {
  return with_event(handle, [&](Context& context, std::shared_ptr<Event>& event) {
    if ((flags & ~1u) != 0) return CUDA_ERROR_INVALID_VALUE;
    return record(context, event, stream, flags);
  });
}
extern "C" CUresult cuEventRecord(CUevent handle, CUstream stream) {
  return cuEventRecordWithFlags(handle, stream, 0);
}

extern "C" CUresult cuEventQuery(CUevent handle) {
  return with_event(handle, [](Context& context, std::shared_ptr<Event>& event) {
    if (CUresult r = refuse_captured(*event); r != CUDA_SUCCESS) return r;
    if (CUresult r = refuse_in_capture(); r != CUDA_SUCCESS) return r;
    auto record = event->latest();
    if (record && !record->is_done()) return CUDA_ERROR_NOT_READY;
    return context.fault();
  });
}

extern "C" CUresult cuEventSynchronize(CUevent handle) {
  return with_event(handle, [](Context& context, std::shared_ptr<Event>& event) {
    if (CUresult r = refuse_captured(*event); r != CUDA_SUCCESS) return r;
    if (CUresult r = refuse_in_capture(); r != CUDA_SUCCESS) return r;
    if (auto record = event->latest()) record->wait(context);
    PrintfText::flush();
    return context.fault();
  });
}

extern "C" CUresult cuEventElapsedTime_v2(float* out, CUevent start, CUevent end) {
  return with_context([&](Context&) {
    auto first = events().find(start);
    auto second = events().find(end);
    if (!first || !second) return CUDA_ERROR_INVALID_HANDLE;
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if ((first->flags | second->flags) & CU_EVENT_DISABLE_TIMING) return CUDA_ERROR_INVALID_HANDLE;
    if (CUresult r = refuse_captured(*first); r != CUDA_SUCCESS) return r;
    if (CUresult r = refuse_captured(*second); r != CUDA_SUCCESS) return r;
    auto a = first->latest();
    auto b = second->latest();
    if (!a || !b) return CUDA_ERROR_INVALID_HANDLE;  // never recorded
    if (a->done.load() == 0 || b->done.load() == 0) return CUDA_ERROR_NOT_READY;
    *out = static_cast<float>(static_cast<double>(b->time_ns.load() - a->time_ns.load()) * 1e-6);
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuEventElapsedTime(float* out, CUevent start, CUevent end) {
  return cuEventElapsedTime_v2(out, start, end);
}

extern "C" CUresult cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned int flags) {
  return with_event(event_handle, [&](Context& context, std::shared_ptr<Event>& event) {
    if ((flags & ~1u) != 0) return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<Stream> stream;
    if (CUresult r = stream_of(context, handle, &stream); r != CUDA_SUCCESS) return r;
    if (stream->capturing.load() && (flags & CU_EVENT_WAIT_EXTERNAL)) {
      return capture_operation(*stream, WaitContent{event});
    }
    bool captured = false;
    if (CUresult r = capture_wait(*stream, *event, &captured); r != CUDA_SUCCESS || captured) {
      return r;
    }
    if (stream->legacy) {
      if (CUresult r = refuse_legacy(*stream); r != CUDA_SUCCESS) return r;
    }
    if (auto record = event->latest()) stream->submit(WaitOperation{std::move(record)});
    return CUDA_SUCCESS;
  });
}
