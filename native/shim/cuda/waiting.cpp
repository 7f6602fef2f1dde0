// Waiting for streams, and for copies that returned early.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/waiting.hpp"

#include "base/log.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

bool ordered_by_legacy(const Stream* one, const Stream* other) {
  if (one->green != other->green) return false;
  if ((one->flags & CU_STREAM_NON_BLOCKING) != 0 || (other->flags & CU_STREAM_NON_BLOCKING) != 0) {
    return false;
  }
  return one->legacy || other->legacy;
}

}  // namespace

std::atomic<bool> shares_memory{false};

CUresult wait_all(Stream* stream) {
  if (const CUresult result = refresh_views(); result != CUDA_SUCCESS) return result;
  Context* context = stream->context;
  client::Answer<wire::command::StreamSynchronize> answer;
  uint64_t count = 0;
  const CUresult result =
      call(context, wire::command::StreamSynchronize{.stream = stream->head.id()}, &answer, stream,
           &count);
  if (result != CUDA_SUCCESS) return result;
  context->server->copies().report(&stream->progress, count);
  return context->server->copies().wait(&stream->progress, count) ? check(context)
                                                                  : CUDA_ERROR_DEVICE_UNAVAILABLE;
}

bool is_idle(const Stream* stream) {
  if (!stream->progress.idle()) return false;
  if (!stream->legacy) return true;
  bool idle = true;
  streams.for_each([&](const Stream* other) {
    if (other->context == stream->context && (other->flags & CU_STREAM_NON_BLOCKING) == 0) {
      idle = idle && other->progress.idle();
    }
  });
  return idle;
}

bool is_first(const Stream* stream) {
  bool first = true;
  streams.for_each([&](const Stream* other) {
    if (other->context != stream->context) return;
    if (other == stream || ordered_by_legacy(other, stream)) first &= other->progress.idle();
  });
  return first;
}

bool may_return_early(Stream* stream) {
  if (shares_memory.load(std::memory_order_relaxed)) return false;
  const Context* context = stream->context;
  // Behind nothing but such copies it is as if the stream were idle.
  const uint64_t upload = context->upload_count.load();
  const bool behind_uploads = upload != 0 && context->upload_stream.load() == stream;
  bool early = true;
  streams.for_each([&](const Stream* other) {
    if (other->context != context) return;
    if (other != stream && !ordered_by_legacy(other, stream)) return;
    const bool quiet = other->progress.idle() || (other == stream && behind_uploads &&
                                                  other->progress.issued.load() == upload);
    early = early && quiet;
  });
  return early;
}

void note_upload(Stream* stream, uint64_t count) {
  Context* context = stream->context;
  context->upload_stream.store(stream);
  context->upload_count.store(count);
}

CUresult finish_uploads(const client::Server* server) {
  CUresult result = CUDA_SUCCESS;
  contexts.for_each([&](const Context* context) {
    if (context->server != server || context->destroyed.load()) return;
    const uint64_t count = context->upload_count.load();
    Stream* stream = context->upload_stream.load();
    if (count == 0 || stream == nullptr || stream->progress.complete.load() >= count) return;
    if (const CUresult waited = wait_all(stream); waited != CUDA_SUCCESS) result = waited;
  });
  return result;
}

CUresult stream_for(const Range& range, Stream** stream, bool* away, Beyond beyond) {
  Stream* asked = *stream;
  const bool elsewhere = range.device->server != asked->context->server;
  *away = elsewhere || (beyond == Beyond::device && range.device != asked->context->device &&
                        !is_captured(asked));
  if (!*away) return CUDA_SUCCESS;
  if (is_captured(asked)) {
    static const char said[] = "captured copy between servers";
    say_once(said,
             "the program captures a copy between devices of two servers, which is not supported; "
             "it gets CUDA_ERROR_NOT_SUPPORTED");
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  if (!is_idle(asked)) {
    if (const CUresult result = wait_all(asked); result != CUDA_SUCCESS) return result;
  }
  Context* context = range.context;
  if (context == nullptr) {
    const CUresult result = primary_context(range.device, &context);
    if (result != CUDA_SUCCESS) return result;
  }
  *stream = context->legacy;
  return check(context);
}

CUresult await_upload_slow(Stream* stream) {
  Context* context = stream->context;
  uint64_t count = context->upload_count.load();
  Stream* from = context->upload_stream.load();
  if (count == 0 || from == nullptr) return CUDA_SUCCESS;
  if (from->progress.complete.load() < count) {
    if (from == stream || ordered_by_legacy(from, stream)) return CUDA_SUCCESS;
    if (const CUresult result = wait_all(from); result != CUDA_SUCCESS) return result;
  }
  // A newer upload stays noted.
  context->upload_count.compare_exchange_strong(count, 0);
  return CUDA_SUCCESS;
}

}  // namespace outboard::shim
