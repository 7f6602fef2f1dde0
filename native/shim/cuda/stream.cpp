// Streams: creation, waiting, questions, waits for events and memory words, host functions.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/stream.hpp"

#include <pthread.h>

#include <algorithm>
#include <mutex>

#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/event.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/host_functions.hpp"
#include "shim/cuda/waiting.hpp"

namespace outboard::shim {
namespace {

void destroy(Stream* stream) {
  Context* context = stream->context;
  abandon(stream);
  // Bytes on their way refer to the slot: they come first.
  if (stream->progress.copies_pending.load() != 0 && context->sticky.load() == 0) wait_all(stream);
  send(context, wire::command::StreamDestroy{.stream = stream->head.id()});
  context->server->bulk().forget(stream->head.id());
  streams.give(stream);
}

bool is_of_living(const PerThreadStream& entry) {
  return contexts.find_id(entry.context) != nullptr && !entry.stream->context->destroyed.load();
}

// Runs when a thread ends: its default streams end with it.
void retire_thread(void*) {
  for (PerThreadStream& entry : thread_state.per_thread) {
    if (entry.stream != nullptr && client::running() && is_of_living(entry)) {
      destroy(entry.stream);
    }
    entry = {};
  }
}

pthread_key_t retire_key() {
  static const pthread_key_t key = [] {
    pthread_key_t made = 0;
    ::pthread_key_create(&made, retire_thread);
    return made;
  }();
  return key;
}

CUresult enter_local(CUstream value, Stream** stream) {
  Context* context = nullptr;
  if (const CUresult result = enter_local(&context); result != CUDA_SUCCESS) return result;
  *stream = resolve(value, context);
  if (*stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return (*stream)->context->destroyed.load() ? CUDA_ERROR_CONTEXT_IS_DESTROYED : CUDA_SUCCESS;
}

// A word that commands of the stream may wait for or write.
bool is_word(const Stream* stream, CUdeviceptr address, uint32_t bytes) {
  Range range;
  return address % bytes == 0 && (addresses().is_device(address, bytes, &range) ||
                                  addresses().is_shared(stream->context->server, address, bytes));
}

CUresult wait_value(CUstream hStream, CUdeviceptr address, uint64_t value, unsigned flags,
                    uint32_t width) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  if ((flags & 0x3fffffffu) > CU_STREAM_WAIT_VALUE_NOR || !is_word(stream, address, width)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  return send(stream, wire::command::StreamWaitValue{.stream = stream->head.id(),
                                                     .address = address,
                                                     .value = value,
                                                     .flags = flags,
                                                     .width = width});
}

CUresult write_value(CUstream hStream, CUdeviceptr address, uint64_t value, unsigned flags,
                     uint32_t width) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  if ((flags & ~CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER) != 0 || !is_word(stream, address, width)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  return send(stream, wire::command::StreamWriteValue{.stream = stream->head.id(),
                                                      .address = address,
                                                      .value = value,
                                                      .flags = flags,
                                                      .width = width});
}

bool is_valid(const Stream* stream, const CUstreamBatchMemOpParams& operation) {
  switch (operation.operation) {
    case CU_STREAM_MEM_OP_WAIT_VALUE_32:
      return is_word(stream, operation.waitValue.address, 4);
    case CU_STREAM_MEM_OP_WAIT_VALUE_64:
      return is_word(stream, operation.waitValue.address, 8);
    case CU_STREAM_MEM_OP_WRITE_VALUE_32:
      return is_word(stream, operation.writeValue.address, 4);
    case CU_STREAM_MEM_OP_WRITE_VALUE_64:
      return is_word(stream, operation.writeValue.address, 8);
    case CU_STREAM_MEM_OP_BARRIER:
    case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES:
      return true;
    default:
      return false;
  }
}

}  // namespace

CUresult make_stream(Context* context, GreenContext* green, unsigned flags, int priority,
                     Stream** out) {
  Stream* stream = streams.take();
  if (stream == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  stream->context = context;
  stream->green = green;
  stream->flags = flags;
  // Priorities beyond the range mean its ends, as natively.
  stream->priority =
      std::max(std::min(priority, context->least_priority), context->greatest_priority);
  CUresult result =
      send(context, wire::command::StreamCreate{.stream = stream->head.id(),
                                                .flags = flags,
                                                .priority = stream->priority,
                                                .green = green != nullptr ? green->head.id() : 0});
  if (result != CUDA_SUCCESS) {
    streams.give(stream);
    return result;
  }
  // What all work of the context waits for, this stream's does too.
  for (const WholeContext* whole : {&context->whole, green != nullptr ? &green->whole : nullptr}) {
    Stream* gate = whole != nullptr ? whole->gate.load() : nullptr;
    if (gate == nullptr || gate->progress.idle()) continue;
    if (result = follow(stream, gate); result != CUDA_SUCCESS) return result;
  }
  *out = stream;
  return CUDA_SUCCESS;
}

Stream* per_thread_stream(Context* context) {
  GreenContext* green = thread_state.green;
  if (green != nullptr && green->context != context) green = nullptr;
  const uint64_t id = context->head.id();
  const uint64_t part = green != nullptr ? green->head.id() : 0;
  PerThreadStream* free = nullptr;
  for (PerThreadStream& entry : thread_state.per_thread) {
    if (entry.stream != nullptr && entry.context == id && entry.green == part) return entry.stream;
    // A place whose context is gone may be used again: its stream went with it.
    if (entry.stream == nullptr || !is_of_living(entry)) free = &entry;
  }
  Stream* stream = nullptr;
  if (free == nullptr ||
      make_stream(context, green, CU_STREAM_DEFAULT, 0, &stream) != CUDA_SUCCESS) {
    return nullptr;
  }
  stream->per_thread = true;
  *free = {id, part, stream};
  ::pthread_setspecific(retire_key(), &thread_state);
  return stream;
}

Stream* own_stream(std::atomic<Stream*>* place, Context* context, GreenContext* green) {
  static constinit std::mutex mutex;
  const std::lock_guard guard(mutex);
  Stream* stream = place->load();
  if (stream != nullptr) return stream;
  if (make_stream(context, green, CU_STREAM_NON_BLOCKING, 0, &stream) != CUDA_SUCCESS) {
    return nullptr;
  }
  stream->per_thread = true;  // not the program's to destroy
  place->store(stream);
  return stream;
}

Stream* side_stream(Context* context) { return own_stream(&context->side, context, nullptr); }

CUresult cuStreamCreateWithPriority(CUstream* phStream, unsigned int flags, int priority) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (phStream == nullptr || (flags & ~CU_STREAM_NON_BLOCKING) != 0)
    return CUDA_ERROR_INVALID_VALUE;
  Stream* stream = nullptr;
  const CUresult result = make_stream(context, thread_state.green, flags, priority, &stream);
  if (result == CUDA_SUCCESS) *phStream = handle(stream);
  return result;
}

CUresult cuStreamCreate(CUstream* phStream, unsigned int Flags) {
  return shim::cuStreamCreateWithPriority(phStream, Flags, 0);
}

CUresult cuStreamDestroy_v2(CUstream hStream) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Stream* stream = streams.find(hStream);
  if (stream == nullptr || stream->legacy || stream->per_thread) return CUDA_ERROR_INVALID_HANDLE;
  Context* context = stream->context;
  if (context->destroyed.load()) return CUDA_ERROR_CONTEXT_IS_DESTROYED;  // left by a green context
  destroy(stream);
  return check(context);
}

CUresult cuStreamSynchronize(CUstream hStream) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  if (const CUresult result = check_stream_unsafe(stream); result != CUDA_SUCCESS) return result;
  if (!is_idle(stream)) {
    if (const CUresult result = wait_all(stream); result != CUDA_SUCCESS) return result;
  }
  return fetch_views();
}

CUresult cuStreamQuery(CUstream hStream) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  if (const CUresult result = check_stream_unsafe(stream); result != CUDA_SUCCESS) return result;
  if (is_idle(stream)) return fetch_views();
  if (const CUresult result = refresh_views(); result != CUDA_SUCCESS) return result;
  const uint64_t count = stream->progress.issued.load();
  client::Answer<wire::command::StreamQuery> answer;
  const CUresult result =
      call(context, wire::command::StreamQuery{.stream = stream->head.id()}, &answer);
  if (result != CUDA_SUCCESS) return result;
  context->server->copies().report(&stream->progress, count);
  return stream->progress.complete.load() >= count ? fetch_views() : CUDA_ERROR_NOT_READY;
}

CUresult cuStreamWaitEvent(CUstream hStream, CUevent hEvent, unsigned int Flags) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  Event* event = find(hEvent);
  if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if ((Flags & ~CU_EVENT_WAIT_EXTERNAL) != 0) return CUDA_ERROR_INVALID_VALUE;
  return await_event(stream, event, Flags);
}

CUresult await_event(Stream* stream, Event* event, unsigned flags) {
  if (flags == CU_EVENT_WAIT_EXTERNAL) {
    // A node that waits for the event at every launch.
    if (!is_captured(stream)) return CUDA_ERROR_INVALID_VALUE;
    if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
    return send(stream,
                wire::command::StreamWaitEvent{
                    .stream = stream->head.id(), .event = event->head.id(), .flags = flags});
  }
  if (const CUresult result = note_wait(stream, event); result != CUDA_SUCCESS) return result;
  if (!event->recorded.load(std::memory_order_acquire)) return CUDA_SUCCESS;
  if (event->context->server != stream->context->server) {
    return shim::cuEventSynchronize(
        handle(event));  // nothing on one server waits for another: we do
  }
  return send(stream, wire::command::StreamWaitEvent{
                          .stream = stream->head.id(), .event = event->head.id(), .flags = flags});
}

CUresult cuLaunchHostFunc(CUstream hStream, CUhostFn fn, void* userData) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  if (fn == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  if (!is_captured(stream)) return add_host_function(stream, fn, userData);
  Graph* graph = captured_graph(stream);
  if (graph == nullptr) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  graph->has_host_parts = true;
  const uint64_t function = register_function(fn, userData);
  if (function == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  return send(stream,
              wire::command::HostFunction{.stream = stream->head.id(), .function = function});
}

CUresult cuStreamAddCallback(CUstream hStream, CUstreamCallback callback, void* userData,
                             unsigned int flags) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  if (callback == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (is_captured(stream)) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  return add_callback(stream, callback, userData);
}

// ---- what a stream says of itself
// ------------------------------------------------------------------

CUresult cuStreamGetCtx(CUstream hStream, CUcontext* pctx) {
  Stream* stream = nullptr;
  if (const CUresult result = enter_local(hStream, &stream); result != CUDA_SUCCESS) return result;
  if (pctx == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *pctx = stream->green != nullptr ? converted(stream->green) : handle(stream->context);
  return CUDA_SUCCESS;
}

CUresult cuStreamGetCtx_v2(CUstream hStream, CUcontext* pCtx, CUgreenCtx* pGreenCtx) {
  // As CUDA says, whose green contexts have no default streams for threads.
  if (hStream == CU_STREAM_PER_THREAD && thread_state.green != nullptr) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  Stream* stream = nullptr;
  if (const CUresult result = enter_local(hStream, &stream); result != CUDA_SUCCESS) return result;
  if (pCtx == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *pCtx = handle(stream->context);
  if (pGreenCtx != nullptr) *pGreenCtx = handle(stream->green);
  return CUDA_SUCCESS;
}

CUresult cuStreamGetDevice(CUstream hStream, CUdevice* device) {
  Stream* stream = nullptr;
  if (const CUresult result = enter_local(hStream, &stream); result != CUDA_SUCCESS) return result;
  if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *device = stream->context->device->ordinal;
  return CUDA_SUCCESS;
}

CUresult cuStreamGetFlags(CUstream hStream, unsigned int* flags) {
  Stream* stream = nullptr;
  if (const CUresult result = enter_local(hStream, &stream); result != CUDA_SUCCESS) return result;
  if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *flags = stream->flags;
  return CUDA_SUCCESS;
}

CUresult cuStreamGetPriority(CUstream hStream, int* priority) {
  Stream* stream = nullptr;
  if (const CUresult result = enter_local(hStream, &stream); result != CUDA_SUCCESS) return result;
  if (priority == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *priority = stream->priority;
  return CUDA_SUCCESS;
}

CUresult cuStreamGetId(CUstream hStream, unsigned long long* streamId) {
  Stream* stream = nullptr;
  if (const CUresult result = enter_local(hStream, &stream); result != CUDA_SUCCESS) return result;
  if (streamId == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *streamId = stream->head.id();
  return CUDA_SUCCESS;
}

// Attributes are hints about caching and scheduling: kept and given back, but not sent.
CUresult cuStreamGetAttribute(CUstream hStream, CUstreamAttrID attr, CUstreamAttrValue* value) {
  Stream* stream = nullptr;
  if (const CUresult result = enter_local(hStream, &stream); result != CUDA_SUCCESS) return result;
  if (value == nullptr || attr < 0 || attr >= CU_LAUNCH_ATTRIBUTE_MAX)
    return CUDA_ERROR_INVALID_VALUE;
  *value = stream->attributes[attr];
  if (attr == CU_LAUNCH_ATTRIBUTE_PRIORITY) value->priority = stream->priority;
  return CUDA_SUCCESS;
}

CUresult cuStreamSetAttribute(CUstream hStream, CUstreamAttrID attr,
                              const CUstreamAttrValue* param) {
  Stream* stream = nullptr;
  if (const CUresult result = enter_local(hStream, &stream); result != CUDA_SUCCESS) return result;
  if (param == nullptr || attr < 0 || attr >= CU_LAUNCH_ATTRIBUTE_MAX)
    return CUDA_ERROR_INVALID_VALUE;
  stream->attributes[attr] = *param;
  return CUDA_SUCCESS;
}

CUresult cuStreamCopyAttributes(CUstream dst, CUstream src) {
  Stream *to = nullptr, *from = nullptr;
  if (const CUresult result = enter_local(dst, &to); result != CUDA_SUCCESS) return result;
  if (const CUresult result = enter_local(src, &from); result != CUDA_SUCCESS) return result;
  to->attributes = from->attributes;
  return CUDA_SUCCESS;
}

CUresult cuStreamBatchMemOp_v2(CUstream hStream, unsigned int count,
                               CUstreamBatchMemOpParams* paramArray, unsigned int flags) {
  constexpr unsigned most = 256;
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  if (count == 0) return CUDA_SUCCESS;
  if (paramArray == nullptr || count > most || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  for (unsigned i = 0; i < count; ++i) {
    if (!is_valid(stream, paramArray[i])) return CUDA_ERROR_INVALID_VALUE;
  }
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  const std::span operations(paramArray, count);
  return send(
      stream,
      wire::command::StreamMemoryOperations{
          .stream = stream->head.id(), .flags = flags, .operations = std::as_bytes(operations)});
}

CUresult cuStreamWaitValue32_v2(CUstream stream, CUdeviceptr addr, cuuint32_t value,
                                unsigned int flags) {
  return wait_value(stream, addr, value, flags, 4);
}
CUresult cuStreamWaitValue64_v2(CUstream stream, CUdeviceptr addr, cuuint64_t value,
                                unsigned int flags) {
  return wait_value(stream, addr, value, flags, 8);
}
CUresult cuStreamWriteValue32_v2(CUstream stream, CUdeviceptr addr, cuuint32_t value,
                                 unsigned int flags) {
  return write_value(stream, addr, value, flags, 4);
}
CUresult cuStreamWriteValue64_v2(CUstream stream, CUdeviceptr addr, cuuint64_t value,
                                 unsigned int flags) {
  return write_value(stream, addr, value, flags, 8);
}

}  // namespace outboard::shim
