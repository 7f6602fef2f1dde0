// What every call checks first, at the cost of a few loads: process, context, late errors, streams.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <algorithm>
#include <cstddef>
#include <span>

#include "generated/shim_api.hpp"
#include "shim/cuda/capture.hpp"
#include "shim/cuda/objects.hpp"
#include "shim/cuda/runtime.hpp"

namespace outboard::shim {

/// Why the process may not call: before cuInit, in a forked child.
CUresult not_running();
/// The error that a context has to report; success if it was taken meanwhile.
CUresult report(Context* context);

/// Process only.
inline CUresult enter() {
  if (!client::running()) [[unlikely]]
    return not_running();
  return CUDA_SUCCESS;
}

/// Process and current context, without late errors: for what is answered locally.
inline CUresult enter_local(Context** out) {
  if (!client::running()) [[unlikely]]
    return not_running();
  Context* context = thread_state.current;
  if (context == nullptr) [[unlikely]]
    return CUDA_ERROR_INVALID_CONTEXT;
  if (context->destroyed.load(std::memory_order_relaxed)) [[unlikely]] {
    return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  }
  *out = context;
  return CUDA_SUCCESS;
}

/// Process, current context, its late errors.
inline CUresult enter(Context** out) {
  if (!client::running()) [[unlikely]]
    return not_running();
  Context* context = thread_state.current;
  if (context == nullptr) [[unlikely]]
    return CUDA_ERROR_INVALID_CONTEXT;
  *out = context;
  if (context->trouble.load(std::memory_order_relaxed) != 0) [[unlikely]]
    return report(context);
  return CUDA_SUCCESS;
}

/// The late errors of a context that a call names other than by being current.
inline CUresult check(Context* context) {
  return context->trouble.load(std::memory_order_relaxed) != 0 ? report(context) : CUDA_SUCCESS;
}

/// The stream that a program's handle means within `context`; null: no such stream.
inline Stream* resolve(CUstream value, Context* context) {
  if (value == nullptr) return legacy_stream(context);
  if (value == CU_STREAM_LEGACY) return legacy_stream(context);
  if (value == CU_STREAM_PER_THREAD) return per_thread_stream(context);
  return streams.find(value);
}

/// The stream of calls that name none.
inline Stream* default_stream(Context* context) {
  return per_thread_default_stream() ? per_thread_stream(context) : legacy_stream(context);
}

/// Everything that a call with a stream begins with. The stream may belong to another context than
/// the current one, whose errors it then reports.
inline CUresult enter(CUstream value, Context** context, Stream** stream) {
  if (const CUresult result = enter(context); result != CUDA_SUCCESS) [[unlikely]]
    return result;
  *stream = resolve(value, *context);
  if (*stream == nullptr) [[unlikely]]
    return CUDA_ERROR_INVALID_HANDLE;
  if ((*stream)->context != *context) [[unlikely]] {
    *context = (*stream)->context;
    return check(*context);
  }
  return CUDA_SUCCESS;
}

/// Sends an async command that is ordered on `stream`.
template <typename Command>
CUresult send(Stream* stream, const Command& command, uint64_t* count = nullptr) {
  Context* context = stream->context;
  return to_cuda(
      context->server->connection().send(command, context->head.index, &stream->progress, count));
}

/// Sends `items` in stream order, in as many of the commands `command(part)` as it takes with at
/// most `most` in each.
template <typename Item, typename Make>
CUresult send_in_parts(Stream* stream, std::span<const Item> items, size_t most, Make&& command) {
  while (!items.empty()) {
    const auto part = items.first(std::min(items.size(), most));
    items = items.subspan(part.size());
    if (const CUresult result = send(stream, command(std::as_bytes(part)));
        result != CUDA_SUCCESS) {
      return result;
    }
  }
  return CUDA_SUCCESS;
}

/// Sends an async command that is ordered on no stream.
template <typename Command>
CUresult send(Context* context, const Command& command) {
  return to_cuda(context->server->connection().send(command, context->head.index));
}

/// Sends a command and waits for its answer.
template <typename Command>
CUresult call(Context* context, const Command& command, client::Answer<Command>* answer,
              Stream* stream = nullptr, uint64_t* count = nullptr) {
  context->server->connection().call(command, context->head.index, answer,
                                     stream != nullptr ? &stream->progress : nullptr, count);
  return to_cuda(answer->result);
}

}  // namespace outboard::shim
