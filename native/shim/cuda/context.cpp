// Contexts: the stack of each thread, primary contexts' states, creation and end.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/array.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/green_context.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/loading.hpp"
#include "shim/cuda/program.hpp"
#include "shim/cuda/shared_pages.hpp"
#include "tables.hpp"

namespace outboard::shim {
namespace {

constexpr unsigned scheduling_flags = CU_CTX_SCHED_MASK;
constexpr unsigned known_flags = CU_CTX_FLAGS_MASK | CU_CTX_MAP_HOST | CU_CTX_SYNC_MEMOPS;

bool scheduling_is_valid(unsigned flags) {
  const unsigned mode = flags & scheduling_flags;
  return mode == CU_CTX_SCHED_AUTO || mode == CU_CTX_SCHED_SPIN || mode == CU_CTX_SCHED_YIELD ||
         mode == CU_CTX_SCHED_BLOCKING_SYNC;
}

CUresult push(Context* context, GreenContext* green = nullptr) {
  ThreadState& thread = thread_state;
  if (thread.depth == std::size(thread.below)) return CUDA_ERROR_OUT_OF_MEMORY;
  thread.below[thread.depth++] = {thread.current, thread.green};
  thread.current = context;
  thread.green = green;
  return CUDA_SUCCESS;
}

void pop() {
  ThreadState& thread = thread_state;
  const CurrentContext below = thread.depth != 0 ? thread.below[--thread.depth] : CurrentContext{};
  thread.current = below.context;
  thread.green = below.green;
}

CUcontext current() {
  const ThreadState& thread = thread_state;
  return thread.green != nullptr ? converted(thread.green) : handle(thread.current);
}

template <typename Reply>
void take_reply(Context* context, const Reply& reply) {
  context->context_id = reply.context_id;
  context->least_priority = reply.least_priority;
  context->greatest_priority = reply.greatest_priority;
  for (size_t i = 0; i < reply.limits.size() && i < context->limits.size(); ++i) {
    context->limits[i].store(reply.limits[i], std::memory_order_relaxed);
  }
}

template <typename Command>
CUresult open_on_server(Context* context, unsigned flags) {
  client::Answer<Command> answer;
  const Command command{.context = context->head.id(),
                        .legacy_stream = context->legacy->head.id(),
                        .device = context->device->index,
                        .flags = flags};
  context->server->connection().call(command, 0, &answer);
  if (answer.result == CUDA_SUCCESS) take_reply(context, answer.reply);
  return to_cuda(answer.result);
}

// Everything that lived in the context is gone with it.
void forget_objects(Context* context) {
  streams.for_each([context](Stream* stream) {
    if (stream->context != context) return;
    abandon(stream);
    context->server->bulk().forget(stream->head.id());
    streams.give(stream);
  });
  events.for_each([context](Event* event) {
    if (event->context == context) events.give(event);
  });
  forget_green_contexts(context);
  forget_graphs(context);
  context->side.store(nullptr);
  context->whole.gather.store(nullptr);
  context->whole.gate.store(nullptr);
  forget_modules(context);
  forget_arrays(context);
  addresses().forget(context);
  forget_views(context);
  forget_shared_pages(context);
}

CUresult create(CUcontext* out, unsigned flags, CUdevice ordinal, unsigned api_version) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (out == nullptr || !scheduling_is_valid(flags) || (flags & ~known_flags) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Device* device = find_device(ordinal);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  Context* context = contexts.take();
  if (context == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  context->api_version = api_version;
  CUresult result = open_context(context, device, flags);
  if (result == CUDA_SUCCESS) result = push(context);
  if (result != CUDA_SUCCESS) {
    contexts.give(context);
    return result;
  }
  *out = handle(context);
  return CUDA_SUCCESS;
}

// With the device's mutex held.
CUresult end_primary(Device* device) {
  device->active.store(false, std::memory_order_relaxed);
  device->retained = 0;
  return close_context(device->primary, true);
}

}  // namespace

CUresult open_context(Context* context, Device* device, unsigned flags) {
  context->server = device->server;
  context->device = device;
  context->flags = flags;
  Stream* legacy = streams.take();
  if (legacy == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  legacy->context = context;
  legacy->legacy = true;
  context->legacy = legacy;
  const CUresult result = context->primary
                              ? open_on_server<wire::command::ContextRetainPrimary>(context, flags)
                              : open_on_server<wire::command::ContextCreate>(context, flags);
  if (result != CUDA_SUCCESS) streams.give(legacy);
  return result;
}

CUresult close_context(Context* context, bool reset) {
  tables::context_destroyed(handle(context));
  client::Answer<wire::command::ContextDestroy> answer;
  const wire::command::ContextDestroy command{.context = context->head.id(), .reset = reset};
  context->server->connection().call(command, 0, &answer);
  context->destroyed.store(true);
  context->trouble.store(1);
  drop_copies(context);
  forget_objects(context);
  // A dead context's last words were its error; ending it succeeds all the same.
  return answer.result == client::result::lost ? CUDA_ERROR_DEVICE_UNAVAILABLE : CUDA_SUCCESS;
}

namespace {

// With the device's mutex held.
CUresult make_primary(Device* device) {
  if (!device->active.load(std::memory_order_relaxed)) {
    Context* context = device->primary;
    if (context == nullptr) {
      context = contexts.take();
      if (context == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
      context->primary = true;
      device->primary = context;
    } else {
      // The program's handle stays what it was; the server's is another.
      ++context->head.generation;
      context->sticky.store(0);
      context->pending.store(0);
    }
    const CUresult result = open_context(context, device, device->primary_flags.load());
    if (result != CUDA_SUCCESS) return result;
    context->destroyed.store(false);
    context->trouble.store(0);
    device->active.store(true, std::memory_order_release);
  }
  return CUDA_SUCCESS;
}

}  // namespace

CUresult primary_context(Device* device, Context** out) {
  const std::lock_guard guard(device->mutex);
  const CUresult result = make_primary(device);
  if (result == CUDA_SUCCESS) *out = device->primary;
  return result;
}

CUresult retain_primary(Device* device, Context** out) {
  const std::lock_guard guard(device->mutex);
  const CUresult result = make_primary(device);
  if (result != CUDA_SUCCESS) return result;
  ++device->retained;
  *out = device->primary;
  return CUDA_SUCCESS;
}

CUresult release_primary(Device* device) {
  const std::lock_guard guard(device->mutex);
  if (!device->active.load() || device->retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
  return --device->retained == 0 ? end_primary(device) : CUDA_SUCCESS;
}

// ---- primary contexts
// ------------------------------------------------------------------------------

CUresult cuDevicePrimaryCtxRetain(CUcontext* pctx, CUdevice dev) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (pctx == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Device* device = find_device(dev);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  Context* context = nullptr;
  const CUresult result = retain_primary(device, &context);
  if (result == CUDA_SUCCESS) *pctx = handle(context);
  return result;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Device* device = find_device(dev);
  return device != nullptr ? release_primary(device) : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Device* device = find_device(dev);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  const std::lock_guard guard(device->mutex);
  return device->active.load() ? end_primary(device) : CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice dev, unsigned int flags) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Device* device = find_device(dev);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  if (!scheduling_is_valid(flags) || (flags & ~known_flags) != 0) return CUDA_ERROR_INVALID_VALUE;
  device->primary_flags.store(flags);
  const std::lock_guard guard(device->mutex);
  if (device->active.load()) device->primary->flags = flags;
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxGetState(CUdevice dev, unsigned int* flags, int* active) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (flags == nullptr || active == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const Device* device = find_device(dev);
  if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  *flags = device->primary_flags.load(std::memory_order_relaxed);
  *active = device->active.load(std::memory_order_relaxed);
  return CUDA_SUCCESS;
}

// ---- creation and end
// ------------------------------------------------------------------------------

CUresult cuCtxCreate_v2(CUcontext* pctx, unsigned int flags, CUdevice dev) {
  return create(pctx, flags, dev, 3020);
}

CUresult cuCtxCreate_v3(CUcontext* pctx, CUexecAffinityParam* paramsArray, int numParams,
                        unsigned int flags, CUdevice dev) {
  if (numParams != 0) return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
  return create(pctx, flags, dev, 3020);
}

CUresult cuCtxCreate_v4(CUcontext* pctx, CUctxCreateParams* ctxCreateParams, unsigned int flags,
                        CUdevice dev) {
  if (ctxCreateParams != nullptr &&
      (ctxCreateParams->numExecAffinityParams != 0 || ctxCreateParams->cigParams != nullptr)) {
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  return create(pctx, flags, dev, 3020);
}

CUresult cuCtxDestroy_v2(CUcontext ctx) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Context* context = find(ctx);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (context->destroyed.load()) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  if (context->primary) return CUDA_ERROR_INVALID_CONTEXT;
  // The slot stays taken: threads that have it current must find it destroyed, not another context.
  if (thread_state.current == context) pop();
  return close_context(context, false);
}

CUresult cuCtxAttach(CUcontext* pctx, unsigned int flags) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (pctx == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  context->usage.fetch_add(1);
  *pctx = current();
  return CUDA_SUCCESS;
}

CUresult cuCtxDetach(CUcontext ctx) {
  Context* context = nullptr;
  if (const CUresult result = enter_local(&context); result != CUDA_SUCCESS) return result;
  if (find(ctx) != context) return CUDA_ERROR_INVALID_CONTEXT;
  int usage = context->usage.load();
  while (usage > 1) {
    if (context->usage.compare_exchange_weak(usage, usage - 1)) return CUDA_SUCCESS;
  }
  return shim::cuCtxDestroy_v2(ctx);
}

// ---- the current context
// ---------------------------------------------------------------------------

CUresult cuCtxGetCurrent(CUcontext* pctx) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (pctx == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *pctx = current();
  return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext ctx) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (ctx == nullptr) {
    if (thread_state.current != nullptr) pop();
    return CUDA_SUCCESS;
  }
  Context* context = find(ctx);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  // A primary context that was reset may be made current: CUDA's runtime does, and retains it when
  // it is used.
  if (context->destroyed.load(std::memory_order_relaxed) && !context->primary) {
    return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  }
  if (thread_state.in_callback != 0) return CUDA_ERROR_NOT_PERMITTED;
  thread_state.current = context;
  thread_state.green = green_contexts.find(ctx);
  return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext ctx) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Context* context = find(ctx);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (context->destroyed.load()) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  if (thread_state.in_callback != 0) return CUDA_ERROR_NOT_PERMITTED;
  return push(context, green_contexts.find(ctx));
}

CUresult cuCtxPopCurrent_v2(CUcontext* pctx) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (thread_state.current == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (pctx != nullptr) *pctx = current();
  pop();
  return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice* device) {
  Context* context = nullptr;
  if (const CUresult result = enter_local(&context); result != CUDA_SUCCESS) return result;
  if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *device = context->device->ordinal;
  return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice_v2(CUdevice* device, CUcontext ctx) {
  if (ctx == nullptr) return cuCtxGetDevice(device);
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const Context* context = find(ctx);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *device = context->device->ordinal;
  return CUDA_SUCCESS;
}

// ---- what a context says of itself
// -----------------------------------------------------------------

CUresult cuCtxGetFlags(unsigned int* flags) {
  Context* context = nullptr;
  if (const CUresult result = enter_local(&context); result != CUDA_SUCCESS) return result;
  if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *flags = context->flags;
  return CUDA_SUCCESS;
}

CUresult cuCtxSetFlags(unsigned int flags) {
  Context* context = nullptr;
  if (const CUresult result = enter_local(&context); result != CUDA_SUCCESS) return result;
  if (!scheduling_is_valid(flags) || (flags & ~known_flags) != 0) return CUDA_ERROR_INVALID_VALUE;
  context->flags = flags;
  return CUDA_SUCCESS;
}

CUresult cuCtxGetApiVersion(CUcontext ctx, unsigned int* version) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const Context* context = ctx != nullptr ? find(ctx) : thread_state.current;
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *version = context->api_version;
  return CUDA_SUCCESS;
}

CUresult cuCtxGetId(CUcontext ctx, unsigned long long* ctxId) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (ctxId == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const Context* context = ctx != nullptr ? find(ctx) : thread_state.current;
  if (context == nullptr) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  const GreenContext* green = ctx != nullptr ? green_contexts.find(ctx) : thread_state.green;
  *ctxId = green != nullptr ? green->number : context->head.index;
  return CUDA_SUCCESS;
}

CUresult cuCtxGetLimit(size_t* pvalue, CUlimit limit) {
  Context* context = nullptr;
  if (const CUresult result = enter_local(&context); result != CUDA_SUCCESS) return result;
  if (pvalue == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (limit < 0 || limit >= limit_count) return CUDA_ERROR_UNSUPPORTED_LIMIT;
  *pvalue = context->limits[limit].load(std::memory_order_relaxed);
  return CUDA_SUCCESS;
}

CUresult cuCtxSetLimit(CUlimit limit, size_t value) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (limit < 0 || limit >= limit_count) return CUDA_ERROR_UNSUPPORTED_LIMIT;
  client::Answer<wire::command::ContextSetLimit> answer;
  const CUresult result =
      call(context,
           wire::command::ContextSetLimit{.limit = static_cast<uint32_t>(limit), .value = value},
           &answer);
  if (result == CUDA_SUCCESS) context->limits[limit].store(answer.reply.value);
  return result;
}

CUresult cuCtxGetStreamPriorityRange(int* leastPriority, int* greatestPriority) {
  Context* context = nullptr;
  if (const CUresult result = enter_local(&context); result != CUDA_SUCCESS) return result;
  if (leastPriority != nullptr) *leastPriority = context->least_priority;
  if (greatestPriority != nullptr) *greatestPriority = context->greatest_priority;
  return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize_v2(CUcontext ctx) {
  Context* context = nullptr;
  if (ctx == nullptr) {
    if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  } else {
    if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
    context = find(ctx);
    if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    if (const CUresult result = check(context); result != CUDA_SUCCESS) return result;
  }
  GreenContext* green = ctx != nullptr ? green_contexts.find(ctx) : thread_state.green;
  if (green != nullptr) return synchronize(green);
  if (const CUresult result = check_context_unsafe(context); result != CUDA_SUCCESS) return result;
  // What is issued now counts; other threads may go on meanwhile.
  std::vector<std::pair<Stream*, uint64_t>> waited;
  streams.for_each([&](Stream* stream) {
    if (stream->context == context && !stream->progress.idle()) {
      waited.emplace_back(stream, stream->progress.issued.load());
    }
  });
  if (waited.empty()) return fetch_views();
  if (const CUresult result = refresh_views(); result != CUDA_SUCCESS) return result;
  client::Answer<wire::command::ContextSynchronize> answer;
  const CUresult result = call(context, wire::command::ContextSynchronize{}, &answer);
  if (result != CUDA_SUCCESS) return result;
  for (const auto& [stream, count] : waited) {
    context->server->copies().report(&stream->progress, count);
    context->server->copies().wait(&stream->progress, count);
  }
  if (const CUresult fetched = fetch_views(); fetched != CUDA_SUCCESS) return fetched;
  return check(context);
}

CUresult cuCtxSynchronize() { return cuCtxSynchronize_v2(nullptr); }

// ---- peers
// -----------------------------------------------------------------------------------------

namespace {

CUresult set_peer(Context* context, const Context* peer, bool reached) {
  client::Answer<wire::command::ContextSetPeer> answer;
  return call(context, wire::command::ContextSetPeer{.peer = peer->head.id(), .reached = reached},
              &answer);
}

}  // namespace

CUresult cuCtxEnablePeerAccess(CUcontext peerContext, unsigned int Flags) {
  Context* context = nullptr;
  if (const CUresult result = enter_local(&context); result != CUDA_SUCCESS) return result;
  const Context* peer = find(peerContext);
  if (peer == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (Flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (!reaches(*context->device, *peer->device)) return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
  return set_peer(context, peer, true);
}

CUresult cuCtxDisablePeerAccess(CUcontext peerContext) {
  Context* context = nullptr;
  if (const CUresult result = enter_local(&context); result != CUDA_SUCCESS) return result;
  const Context* peer = find(peerContext);
  if (peer == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (!reaches(*context->device, *peer->device)) return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
  return set_peer(context, peer, false);
}

}  // namespace outboard::shim
