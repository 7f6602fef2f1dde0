// Entry points about contexts, primary ones included.
// SPDX-License-Identifier: Apache-2.0
#include "capture.hpp"
#include "green_context.hpp"
#include "guard.hpp"
#include "printf_text.hpp"
#include "stream.hpp"

using namespace softgpu;

namespace {

constexpr unsigned kKnownFlags = CU_CTX_FLAGS_MASK;
constexpr unsigned kSchedules = CU_CTX_SCHED_MASK;

bool valid_flags(unsigned flags) {
  unsigned schedule = flags & kSchedules;
  return (flags & ~kKnownFlags) == 0 && (schedule & (schedule - 1)) == 0;
}

/// For calls about a context that is given, or else is current.
template <class Call>
CUresult with_given_context(CUcontext handle, Call&& call) noexcept {
  if (handle == nullptr) return with_context(std::forward<Call>(call));
  return with_driver([&]() -> CUresult {
    std::shared_ptr<Context> context = find_context(handle);
    if (!context) return CUDA_ERROR_INVALID_CONTEXT;
    return call(*context);
  });
}

CUresult create(CUcontext* out, unsigned flags, CUdevice ordinal, unsigned version) {
  return with_driver([&] {
    if (out == nullptr || !valid_flags(flags)) return CUDA_ERROR_INVALID_VALUE;
    Device* device = Driver::get().device(ordinal);
    if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    std::shared_ptr<Context> context = Context::create(*device, flags, false, version);
    if (!context) return CUDA_ERROR_OUT_OF_MEMORY;
    ContextStack::push(context->handle);
    *out = context->handle;
    return CUDA_SUCCESS;
  });
}

template <class Call>
CUresult with_device(CUdevice ordinal, Call&& call) noexcept {
  return with_driver([&]() -> CUresult {
    Device* device = Driver::get().device(ordinal);
    return device ? call(*device) : CUDA_ERROR_INVALID_DEVICE;
  });
}

CUresult end_primary(Device& device, bool reset) {
  std::shared_ptr<Context> gone;
  {
    std::lock_guard lock(device.primary_mutex);
    if (!reset) {
      if (device.primary_retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
      if (--device.primary_retained > 0) return CUDA_SUCCESS;
    }
    gone = std::move(device.primary);
    device.primary.reset();
  }
  if (gone) gone->destroy();
  return CUDA_SUCCESS;
}

/// Whether a device's primary context has this handle, which may be inactive: CUDA's runtime makes
/// one that was reset current, and retains it when it is used.
bool is_primary_handle(CUcontext handle) {
  for (auto& device : Driver::get().devices) {
    std::lock_guard lock(device->primary_mutex);
    if (device->primary_handle == handle) return true;
  }
  return false;
}

/// Of `green`, where it is given, alone.
CUresult synchronize(Context& context, std::shared_ptr<GreenContext> green) {
  std::shared_ptr<Context> keep = context.shared_from_this();
  if (CUresult r = refuse_in_capture(); r != CUDA_SUCCESS) return r;
  auto streams = context.streams();
  if (green) std::erase_if(streams, [&](auto& stream) { return stream->green != green; });
  for (auto& stream : streams) {
    if (stream->capturing.load()) {
      return spoil_capture(*stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
  }
  for (auto& stream : streams) stream->wait_for(stream->issued());
  return context.fault();
}

/// What kernels said is handed out also where the context has died.
CUresult flushed(CUresult r) {
  PrintfText::flush();
  return r;
}

}  // namespace

extern "C" CUresult cuCtxCreate(CUcontext* out, unsigned flags, CUdevice device) {
  return create(out, flags, device, 3010);
}
extern "C" CUresult cuCtxCreate_v2(CUcontext* out, unsigned flags, CUdevice device) {
  return create(out, flags, device, 3020);
}
extern "C" CUresult cuCtxCreate_v3(CUcontext* out, CUexecAffinityParam*, int count, unsigned flags,
                                   CUdevice device) {
  return count > 0 ? CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY : create(out, flags, device, 3020);
}
extern "C" CUresult cuCtxCreate_v4(CUcontext* out, CUctxCreateParams* parameters, unsigned flags,
                                   CUdevice device) {
  if (parameters != nullptr && parameters->numExecAffinityParams > 0) {
    return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
  }
  return create(out, flags, device, 3020);
}

extern "C" CUresult cuCtxDestroy_v2(CUcontext handle) {
  return with_driver([&] {
    std::shared_ptr<Context> context = find_context(handle);
    if (!context) return CUDA_ERROR_INVALID_CONTEXT;
    if (context->primary) return CUDA_ERROR_INVALID_CONTEXT;
    if (ContextStack::current() == handle) ContextStack::pop(nullptr);
    context->destroy();
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuCtxDestroy(CUcontext handle) { return cuCtxDestroy_v2(handle); }
extern "C" CUresult cuCtxDetach(CUcontext handle) {
  const CUresult r = with_context([&](Context& context) {
    if (find_context(handle).get() != &context) return CUDA_ERROR_INVALID_CONTEXT;
    return context.usage.fetch_sub(1) > 1 ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
  });
  return r == CUDA_ERROR_NOT_READY ? cuCtxDestroy_v2(handle) : r;
}
extern "C" CUresult cuCtxAttach(CUcontext* out, unsigned flags) {
  return with_context([&](Context& context) {
    if (out == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    context.usage.fetch_add(1);
    *out = context.handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxPushCurrent_v2(CUcontext handle) {
  return with_driver([&] {
    if (!find_context(handle)) return CUDA_ERROR_INVALID_CONTEXT;
    ContextStack::push(handle);
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuCtxPushCurrent(CUcontext handle) { return cuCtxPushCurrent_v2(handle); }

extern "C" CUresult cuCtxPopCurrent_v2(CUcontext* out) {
  return with_driver([&] { return ContextStack::pop(out); });
}
extern "C" CUresult cuCtxPopCurrent(CUcontext* out) { return cuCtxPopCurrent_v2(out); }

extern "C" CUresult cuCtxSetCurrent(CUcontext handle) {
  return with_driver([&] {
    if (handle != nullptr && !find_context(handle) && !is_primary_handle(handle)) {
      return CUDA_ERROR_INVALID_CONTEXT;
    }
    ContextStack::set_current(handle);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxGetCurrent(CUcontext* out) {
  if (!Driver::initialised()) return CUDA_ERROR_NOT_INITIALIZED;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = ContextStack::current();
  return CUDA_SUCCESS;
}

extern "C" CUresult cuCtxGetDevice(CUdevice* out) {
  return with_context([&](Context& context) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = context.device.ordinal;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuCtxGetDevice_v2(CUdevice* out, CUcontext handle) {
  return with_given_context(handle, [&](Context& context) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = context.device.ordinal;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxGetFlags(unsigned int* out) {
  return with_context([&](Context& context) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = context.flags.load();
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuCtxSetFlags(unsigned int flags) {
  return with_context([&](Context& context) {
    if (!valid_flags(flags)) return CUDA_ERROR_INVALID_VALUE;
    context.flags.store(flags);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxGetId(CUcontext handle, unsigned long long* out) {
  return with_given_context(handle, [&](Context& context) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<GreenContext> green =
        handle == nullptr ? current_green_context() : find_green_context(handle);
    *out = green ? green->id : context.id;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxSynchronize() {
  return flushed(
      with_context([](Context& context) { return synchronize(context, current_green_context()); }));
}
extern "C" CUresult cuCtxSynchronize_v2(CUcontext handle) {
  if (handle == nullptr) return cuCtxSynchronize();
  return flushed(with_given_context(
      handle, [&](Context& context) { return synchronize(context, find_green_context(handle)); }));
}

extern "C" CUresult cuCtxSetLimit(CUlimit limit, size_t value) {
  return with_context([&](Context& context) {
    switch (limit) {
      case CU_LIMIT_MALLOC_HEAP_SIZE:
        context.device.engine->set_malloc_heap(value);
        break;
      case CU_LIMIT_STACK_SIZE:
      case CU_LIMIT_PRINTF_FIFO_SIZE:
      case CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH:
      case CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT:
      case CU_LIMIT_PERSISTING_L2_CACHE_SIZE:
        break;
      case CU_LIMIT_MAX_L2_FETCH_GRANULARITY:
        if (value > 128) return CUDA_ERROR_INVALID_VALUE;
        break;
      default:
        return limit < CU_LIMIT_MAX ? CUDA_ERROR_UNSUPPORTED_LIMIT : CUDA_ERROR_INVALID_VALUE;
    }
    context.limits[limit].store(value);
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuCtxGetLimit(size_t* out, CUlimit limit) {
  return with_context([&](Context& context) {
    if (out == nullptr || limit < 0 || limit >= CU_LIMIT_MAX) return CUDA_ERROR_INVALID_VALUE;
    if (limit > CU_LIMIT_PERSISTING_L2_CACHE_SIZE) return CUDA_ERROR_UNSUPPORTED_LIMIT;
    *out = context.limits[limit].load();
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxGetCacheConfig(CUfunc_cache* out) {
  return with_context([&](Context& context) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = static_cast<CUfunc_cache>(context.cache_config.load());
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuCtxSetCacheConfig(CUfunc_cache value) {
  return with_context([&](Context& context) {
    context.cache_config.store(value);
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuCtxGetSharedMemConfig(CUsharedconfig* out) {
  return with_context([&](Context& context) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = static_cast<CUsharedconfig>(context.shared_config.load());
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuCtxSetSharedMemConfig(CUsharedconfig value) {
  return with_context([&](Context& context) {
    context.shared_config.store(value);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuCtxGetApiVersion(CUcontext handle, unsigned int* out) {
  return with_given_context(handle, [&](Context& context) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = context.api_version ? context.api_version : 3020;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  return with_context([&](Context&) {
    if (least != nullptr) *least = 0;
    if (greatest != nullptr) *greatest = -5;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuCtxResetPersistingL2Cache() {
  return with_context([](Context&) { return CUDA_SUCCESS; });
}
extern "C" CUresult cuCtxGetExecAffinity(CUexecAffinityParam*, CUexecAffinityType) {
  return with_context([](Context&) { return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY; });
}

extern "C" CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags) {
  return with_context([&](Context& context) {
    if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<Context> other = find_context(peer);
    if (!other) return CUDA_ERROR_INVALID_CONTEXT;
    if (&other->device == &context.device) return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
    return context.enable_peer(other->device) ? CUDA_SUCCESS
                                              : CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
  });
}
extern "C" CUresult cuCtxDisablePeerAccess(CUcontext peer) {
  return with_context([&](Context& context) {
    std::shared_ptr<Context> other = find_context(peer);
    if (!other) return CUDA_ERROR_INVALID_CONTEXT;
    return context.disable_peer(other->device) ? CUDA_SUCCESS : CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
  });
}

extern "C" CUresult cuDevicePrimaryCtxRetain(CUcontext* out, CUdevice ordinal) {
  return with_device(ordinal, [&](Device& device) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<Context> context = primary_context(device);
    if (!context) return CUDA_ERROR_OUT_OF_MEMORY;
    std::lock_guard lock(device.primary_mutex);
    ++device.primary_retained;
    *out = context->handle;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuDevicePrimaryCtxRelease_v2(CUdevice ordinal) {
  return with_device(ordinal, [](Device& device) { return end_primary(device, false); });
}
extern "C" CUresult cuDevicePrimaryCtxRelease(CUdevice ordinal) {
  return cuDevicePrimaryCtxRelease_v2(ordinal);
}
extern "C" CUresult cuDevicePrimaryCtxReset_v2(CUdevice ordinal) {
  return with_device(ordinal, [](Device& device) { return end_primary(device, true); });
}
extern "C" CUresult cuDevicePrimaryCtxReset(CUdevice ordinal) {
  return cuDevicePrimaryCtxReset_v2(ordinal);
}
extern "C" CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice ordinal, unsigned int flags) {
  return with_device(ordinal, [&](Device& device) {
    if (!valid_flags(flags)) return CUDA_ERROR_INVALID_VALUE;
    std::lock_guard lock(device.primary_mutex);
    device.primary_flags = flags;
    if (device.primary) device.primary->flags.store(flags);
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuDevicePrimaryCtxSetFlags(CUdevice ordinal, unsigned int flags) {
  return cuDevicePrimaryCtxSetFlags_v2(ordinal, flags);
}
extern "C" CUresult cuDevicePrimaryCtxGetState(CUdevice ordinal, unsigned int* flags, int* active) {
  return with_device(ordinal, [&](Device& device) {
    if (flags == nullptr || active == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::lock_guard lock(device.primary_mutex);
    *flags = device.primary ? device.primary->flags.load() : device.primary_flags;
    *active = device.primary != nullptr;
    return CUDA_SUCCESS;
  });
}
