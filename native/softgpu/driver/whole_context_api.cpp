// Entry points about events over all streams of a context or of a green context.
// SPDX-License-Identifier: Apache-2.0
#include "capture.hpp"
#include "green_context.hpp"
#include "guard.hpp"

using namespace softgpu;

namespace {

/// Whether a stream is of the context, and of its part if one is given.
bool concerns(const Stream& stream, const GreenContext* green) {
  return green == nullptr || stream.green.get() == green;
}

/// No stream of it may capture.
CUresult refuse_captures(Context& context, const GreenContext* green) {
  for (auto& stream : context.streams()) {
    if (!concerns(*stream, green) || !stream->capturing.load()) continue;
    return spoil_capture(*stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  return CUDA_SUCCESS;
}

CUresult record(Context& context, const GreenContext* green, CUevent handle) {
  std::shared_ptr<Event> event = events().find(handle);
  if (!event || event->context.lock().get() != &context) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult r = refuse_captures(context, green); r != CUDA_SUCCESS) return r;
  // Complete when everything that the streams were given before is.
  std::vector<FollowOperation> before;
  context.each_stream([&](Stream& stream) {
    if (concerns(stream, green) && !stream.idle()) {
      before.push_back({stream.shared_from_this(), stream.issued()});
    }
  });
  auto marker = std::make_shared<Stream>(context, CU_STREAM_NON_BLOCKING, 0);
  for (auto& follow : before) marker->submit(std::move(follow));
  marker->submit(RecordOperation{event->renew()});
  return CUDA_SUCCESS;
}

CUresult wait(Context& context, GreenContext* green, CUevent handle) {
  std::shared_ptr<Event> event = events().find(handle);
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult r = refuse_captures(context, green); r != CUDA_SUCCESS) return r;
  auto record = event->latest();
  if (!record) return CUDA_SUCCESS;
  if (green != nullptr) {
    std::lock_guard lock(green->mutex);
    green->gate = record;
  } else {
    context.set_gate(record);
  }
  for (auto& stream : context.streams()) {
    if (concerns(*stream, green)) stream->submit(WaitOperation{record});
  }
  return CUDA_SUCCESS;
}

/// `call(Context&, GreenContext*)`: the second is null where the handle is not a green context's.
template <class Call>
CUresult with_handle(CUcontext handle, Call&& call) noexcept {
  return with_driver([&]() -> CUresult {
    std::shared_ptr<Context> context = find_context(handle);
    if (!context) return CUDA_ERROR_INVALID_CONTEXT;
    return call(*context, find_green_context(handle).get());
  });
}

CUcontext context_of(CUgreenCtx handle) {
  std::shared_ptr<GreenContext> green = green_contexts().find(handle);
  return green ? green->current : nullptr;
}

}  // namespace

extern "C" CUresult cuCtxRecordEvent(CUcontext handle, CUevent event) {
  return with_handle(
      handle, [&](Context& context, GreenContext* green) { return record(context, green, event); });
}
extern "C" CUresult cuCtxWaitEvent(CUcontext handle, CUevent event) {
  return with_handle(
      handle, [&](Context& context, GreenContext* green) { return wait(context, green, event); });
}
extern "C" CUresult cuGreenCtxRecordEvent(CUgreenCtx handle, CUevent event) {
  return cuCtxRecordEvent(context_of(handle), event);
}
extern "C" CUresult cuGreenCtxWaitEvent(CUgreenCtx handle, CUevent event) {
  return cuCtxWaitEvent(context_of(handle), event);
}
