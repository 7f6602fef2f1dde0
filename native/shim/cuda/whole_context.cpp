// Events over all streams of a context or of a green context.
// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "generated/shim_api.hpp"
#include "shim/cuda/event.hpp"
#include "shim/cuda/green_context.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/stream.hpp"

namespace outboard::shim {
namespace {

// The streams that the program has there.
std::vector<Stream*> streams_of(const Context* context, const GreenContext* green,
                                const WholeContext& own) {
  std::vector<Stream*> found;
  streams.for_each([&](Stream* stream) {
    if (stream->context != context || (green != nullptr && stream->green != green)) return;
    if (stream != own.gather.load() && stream != own.gate.load()) found.push_back(stream);
  });
  return found;
}

WholeContext& whole_of(Context* context, GreenContext* green) {
  return green != nullptr ? green->whole : context->whole;
}

// By its handle; the current context is checked by the caller.
CUresult enter(CUcontext value, Context** context, GreenContext** green) {
  if (const CUresult result = shim::enter(); result != CUDA_SUCCESS) return result;
  *context = find(value);
  if (*context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *green = green_contexts.find(value);
  return check(*context);
}

}  // namespace

CUresult record_whole(Context* context, GreenContext* green, CUevent hEvent) {
  Event* event = find(hEvent);
  if (event == nullptr || event->context != context) return CUDA_ERROR_INVALID_HANDLE;
  if (const CUresult result = check_context_unsafe(context, green); result != CUDA_SUCCESS) {
    return result;
  }
  WholeContext& whole = whole_of(context, green);
  Stream* gather = own_stream(&whole.gather, context, green);
  if (gather == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  for (Stream* stream : streams_of(context, green, whole)) {
    if (stream->progress.idle()) continue;
    if (const CUresult result = follow(gather, stream); result != CUDA_SUCCESS) return result;
  }
  return record_event(event, gather, 0);
}

CUresult wait_whole(Context* context, GreenContext* green, CUevent hEvent) {
  Event* event = find(hEvent);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (const CUresult result = check_context_unsafe(context, green); result != CUDA_SUCCESS) {
    return result;
  }
  if (event->capture.load() != 0) {
    check_event_unsafe(event);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  WholeContext& whole = whole_of(context, green);
  // Streams that are made while the event is not complete wait for this one (make_stream).
  Stream* gate = own_stream(&whole.gate, context, green);
  if (gate == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  if (const CUresult result = await_event(gate, event, 0); result != CUDA_SUCCESS) return result;
  for (Stream* stream : streams_of(context, green, whole)) {
    if (const CUresult result = await_event(stream, event, 0); result != CUDA_SUCCESS) {
      return result;
    }
  }
  return CUDA_SUCCESS;
}

CUresult cuCtxRecordEvent(CUcontext hCtx, CUevent hEvent) {
  Context* context = nullptr;
  GreenContext* green = nullptr;
  const CUresult result = enter(hCtx, &context, &green);
  return result == CUDA_SUCCESS ? record_whole(context, green, hEvent) : result;
}

CUresult cuCtxWaitEvent(CUcontext hCtx, CUevent hEvent) {
  Context* context = nullptr;
  GreenContext* green = nullptr;
  const CUresult result = enter(hCtx, &context, &green);
  return result == CUDA_SUCCESS ? wait_whole(context, green, hEvent) : result;
}

}  // namespace outboard::shim
