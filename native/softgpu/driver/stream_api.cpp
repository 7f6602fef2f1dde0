// Entry points about streams and host functions.
// SPDX-License-Identifier: Apache-2.0
#include "capture.hpp"
#include "green_context.hpp"
#include "guard.hpp"
#include "printf_text.hpp"
#include "submit.hpp"

using namespace softgpu;

namespace {

CUresult create(CUstream* out, unsigned flags, int priority) {
  return with_context([&](Context& context) {
    if (out == nullptr || (flags & ~1u) != 0) return CUDA_ERROR_INVALID_VALUE;
    *out = make_stream(context, current_green_context(), flags, priority)->handle;
    return CUDA_SUCCESS;
  });
}

/// For calls about one stream: `call(Context&, Stream&)`.
template <class Call>
CUresult with_stream(CUstream handle, Call&& call) noexcept {
  return with_context([&](Context& context) -> CUresult {
    std::shared_ptr<Stream> stream;
    if (CUresult r = stream_of(context, handle, &stream); r != CUDA_SUCCESS) return r;
    return call(context, *stream);
  });
}

/// Waiting for a stream that captures, or asking about it, spoils the capture.
CUresult refuse_capturing(Context& context, Stream& stream) {
  if (stream.capturing.load()) return spoil_capture(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  return stream.legacy ? refuse_legacy(stream) : CUDA_SUCCESS;
}

}  // namespace

extern "C" CUresult cuStreamCreate(CUstream* out, unsigned int flags) {
  return create(out, flags, 0);
}
extern "C" CUresult cuStreamCreateWithPriority(CUstream* out, unsigned int flags, int priority) {
  return create(out, flags, priority);
}

extern "C" CUresult cuStreamDestroy_v2(CUstream handle) {
  return with_context([&](Context&) {
    std::shared_ptr<Stream> stream = streams().find(handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->orphaned()) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    if (stream->capturing.load()) {
      spoil_capture(*stream, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    }
    streams().erase(handle);
    // What it still has to do is done; until then the context knows it, to wait for it.
    stream->destroyed.store(true);
    if (auto owner = stream->context.lock()) owner->retire_streams();
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuStreamDestroy(CUstream handle) { return cuStreamDestroy_v2(handle); }

extern "C" CUresult cuStreamSynchronize(CUstream handle) {
  return with_stream(handle, [](Context& context, Stream& stream) {
    if (CUresult r = refuse_capturing(context, stream); r != CUDA_SUCCESS) return r;
    // An operation on the legacy stream comes after all blocking streams', so waiting for one does.
    if (stream.legacy) stream.submit(TaskOperation{});
    CUresult result = stream.synchronize();
    PrintfText::flush();
    return result;
  });
}

extern "C" CUresult cuStreamQuery(CUstream handle) {
  return with_stream(handle, [](Context& context, Stream& stream) {
    if (CUresult r = refuse_capturing(context, stream); r != CUDA_SUCCESS) return r;
    if (CUresult r = refuse_in_capture(); r != CUDA_SUCCESS) return r;
    if (stream.legacy) stream.submit(TaskOperation{});
    if (!stream.idle()) return CUDA_ERROR_NOT_READY;
    PrintfText::flush();
    return context.fault();
  });
}

extern "C" CUresult cuStreamGetPriority(CUstream handle, int* out) {
  return with_stream(handle, [&](Context&, Stream& stream) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = stream.priority;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuStreamGetFlags(CUstream handle, unsigned int* out) {
  return with_stream(handle, [&](Context&, Stream& stream) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = stream.flags;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuStreamGetId(CUstream handle, unsigned long long* out) {
  return with_stream(handle, [&](Context&, Stream& stream) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = stream.id;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuStreamGetDevice(CUstream handle, CUdevice* out) {
  return with_stream(handle, [&](Context& context, Stream& stream) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    auto owner = stream.context.lock();
    *out = (owner ? owner.get() : &context)->device.ordinal;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuStreamGetCtx(CUstream handle, CUcontext* out) {
  return with_stream(handle, [&](Context& context, Stream& stream) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    auto owner = stream.context.lock();
    *out = stream.green ? stream.green->current : (owner ? owner.get() : &context)->handle;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuStreamGetCtx_v2(CUstream handle, CUcontext* out, CUgreenCtx* green) {
  if (handle == CU_STREAM_PER_THREAD && current_green_context()) return CUDA_ERROR_INVALID_HANDLE;
  return with_stream(handle, [&](Context& context, Stream& stream) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    auto owner = stream.context.lock();
    *out = (owner ? owner.get() : &context)->handle;
    if (green != nullptr) *green = stream.green ? stream.green->handle : nullptr;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuStreamGetGreenCtx(CUstream handle, CUgreenCtx* out) {
  CUcontext context = nullptr;
  return cuStreamGetCtx_v2(handle, &context, out);
}

extern "C" CUresult cuLaunchHostFunc(CUstream handle, CUhostFn function, void* data) {
  return with_context([&](Context& context) {
    if (function == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return submit(context, handle, HostOperation{function, data});
  });
}

extern "C" CUresult cuStreamAddCallback(CUstream handle, CUstreamCallback callback, void* data,
                                        unsigned int flags) {
  return with_context([&](Context& context) {
    if (callback == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    return submit(context, handle, CallbackOperation{callback, data, handle});
  });
}

extern "C" CUresult cuStreamGetAttribute(CUstream handle, CUstreamAttrID attribute,
                                         CUstreamAttrValue* value) {
  return with_stream(handle, [&](Context&, Stream& stream) {
    if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *value = CUstreamAttrValue{};
    switch (attribute) {
      case CU_LAUNCH_ATTRIBUTE_PRIORITY:
        value->priority = stream.priority;
        return CUDA_SUCCESS;
      case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
        value->syncPolicy = stream.policy;
        return CUDA_SUCCESS;
      case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
      case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
      case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
        return CUDA_SUCCESS;
      default:
        return CUDA_ERROR_INVALID_VALUE;
    }
  });
}

// Hints about caches, waiting and memory domains: there is nothing for them to change here.
extern "C" CUresult cuStreamSetAttribute(CUstream handle, CUstreamAttrID attribute,
                                         const CUstreamAttrValue* value) {
  return with_stream(handle, [&](Context&, Stream& stream) {
    if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
      case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
        stream.policy = value->syncPolicy;
        return CUDA_SUCCESS;
      case CU_LAUNCH_ATTRIBUTE_PRIORITY:
      case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
      case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
      case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
        return CUDA_SUCCESS;
      default:
        return CUDA_ERROR_INVALID_VALUE;
    }
  });
}
extern "C" CUresult cuStreamCopyAttributes(CUstream destination, CUstream source) {
  return with_stream(destination, [&](Context& context, Stream& stream) {
    std::shared_ptr<Stream> other;
    const CUresult r = stream_of(context, source, &other);
    if (r == CUDA_SUCCESS) stream.policy = other->policy;
    return r;
  });
}
