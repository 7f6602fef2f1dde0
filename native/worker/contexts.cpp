// Contexts: making, ending and losing them.
// SPDX-License-Identifier: Apache-2.0
#include "worker/contexts.hpp"

#include <algorithm>

#include "base/log.hpp"
#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

// What the driver tells of a new context and the client answers from then on.
template <typename Reply>
void describe(Worker& worker, const Context& context, Reply& reply, std::vector<uint64_t>& limits) {
  const Driver& driver = worker.driver();
  unsigned long long context_id = 0;
  driver.cuCtxGetId(context.handle, &context_id);
  reply.context_id = context_id;
  driver.cuCtxGetStreamPriorityRange(&reply.least_priority, &reply.greatest_priority);
  limits.assign(CU_LIMIT_MAX, 0);
  for (int limit = 0; limit < CU_LIMIT_MAX; ++limit) {
    size_t value = 0;
    if (driver.cuCtxGetLimit(&value, static_cast<CUlimit>(limit)) == CUDA_SUCCESS) {
      limits[static_cast<size_t>(limit)] = value;
    }
  }
  reply.limits = limits;
}

CUresult make_driver_context(Worker& worker, Context& context, unsigned flags) {
  const Driver& driver = worker.driver();
  const CUdevice device = worker.devices[context.device].handle;
  if (!context.primary) return driver.cuCtxCreate_v2(&context.handle, flags, device);
  driver.cuDevicePrimaryCtxSetFlags_v2(device, flags);  // refused where it is active: keeps its own
  return driver.cuDevicePrimaryCtxRetain(&context.handle, device);
}

void end_driver_context(Worker& worker, Context& context) {
  const Driver& driver = worker.driver();
  const CUdevice device = worker.devices[context.device].handle;
  if (!context.primary) {
    driver.cuCtxDestroy_v2(context.handle);
  } else {
    // Also for the last release: a warm worker holds a reference of its own, so that a release
    // would keep what the program left.
    driver.cuDevicePrimaryCtxReset_v2(device);
  }
  context.alive = false;
  worker.forget_current();
}

CUresult undo(Worker& worker, Context& context, CUresult result) {
  if (context.handle) end_driver_context(worker, context);
  worker.share.release(context.device, context.context_bytes);
  return result;
}

struct Naming {
  uint64_t context;
  uint64_t legacy_stream;
  uint32_t device;
  uint32_t flags;
};

template <typename Reply>
CUresult make(Worker& worker, const Naming& naming, bool primary, Reply& reply,
              std::vector<uint64_t>& limits) {
  if (!worker.accept_create(worker.tables.contexts.may_insert(naming.context)) ||
      !worker.accept_create(worker.tables.streams.may_insert(naming.legacy_stream))) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  if (naming.device >= worker.devices.size()) return CUDA_ERROR_INVALID_DEVICE;
  auto context = std::make_shared<Context>(worker.driver());
  context->id = naming.context;
  context->device = naming.device;
  context->primary = primary;
  const uint64_t bytes = worker.devices[naming.device].context_bytes;
  if (!worker.share.reserve(naming.device, bytes)) {
    say("a context takes %llu MiB of device memory, and the share has not that much left",
        static_cast<unsigned long long>(bytes >> 20));
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  context->context_bytes = bytes;
  CUresult result = make_driver_context(worker, *context, naming.flags);
  if (result != CUDA_SUCCESS) return undo(worker, *context, result);
  worker.make_current(*context);
  context->legacy = worker.make_stream(context, StreamKind::legacy, 0, 0, &result);
  if (!context->legacy) return undo(worker, *context, result);
  context->legacy->id = naming.legacy_stream;
  describe(worker, *context, reply, limits);
  worker.tables.streams.insert(naming.legacy_stream, context->legacy);
  worker.tables.contexts.insert(naming.context, std::move(context));
  return CUDA_SUCCESS;
}

// The driver ends it by itself where one of the two goes.
void forget_peers(Worker& worker, Context& context) {
  const auto forget = [&](Context& one, const Context& other) {
    if (std::erase(one.peers, other.id) != 0) worker.memory.close(other.device, one.device);
  };
  worker.tables.contexts.each([&](Context& other) {
    forget(other, context);
    forget(context, other);
  });
}

}  // namespace

// Everything that lives in a context goes with it, as in CUDA; the client may use the ids again.
void end_context(Worker& worker, const std::shared_ptr<Context>& context) {
  Tables& tables = worker.tables;
  const auto inside = [&](const auto& object) { return object.context == context; };
  std::erase_if(worker.host_functions(),
                [&](const auto& entry) { return entry.second.stream->context == context.get(); });
  worker.host_calls.release(*context);
  std::vector<GreenContext*> greens;
  tables.greens.each([&](GreenContext& green) {
    if (green.context == context.get()) greens.push_back(&green);
  });
  for (GreenContext* green : greens) end_green_context(worker, *green);
  const auto streams = context->streams;
  for (const auto& stream : streams) worker.drop_stream(*stream);
  context->legacy.reset();
  tables.streams.remove_where(
      [&](const Stream& stream) { return stream.context == context.get(); });
  tables.events.remove_where(inside);
  tables.functions.remove_where(inside);
  tables.modules.each([&](const Module& module) {
    if (!inside(module)) return;
    worker.memory.remove_globals(module);
    worker.host_memory.release_lost();
    // Libraries belong to no context of the driver's, so that they must be unloaded by hand.
    if (module.library) worker.driver().cuLibraryUnload(module.library);
  });
  tables.modules.remove_where(inside);
  tables.graphs.each([&](const Graph& graph) {
    if (graph.context == context) worker.graph_names.forget(graph);
  });
  worker.graph_names.forget_context(*context);
  tables.graphs.remove_where(inside);
  tables.executables.remove_where(inside);
  end_arrays(worker, *context);
  forget_peers(worker, *context);
  tables.contexts.remove(context->id);
  worker.make_current(*context);
  context->staging.unregister_all();
  worker.host_memory.release_all(*context);
  end_driver_context(worker, *context);
  worker.memory.release_all(*context);
  worker.share.release(context->device, context->context_bytes);
}

CUresult execute(Worker& worker, const wire::command::ContextRetainPrimary& command,
                 wire::command::ContextRetainPrimary::Reply& reply) {
  // The reply's span must outlive this call.
  static thread_local std::vector<uint64_t> limits;
  return make(worker, {command.context, command.legacy_stream, command.device, command.flags}, true,
              reply, limits);
}

CUresult execute(Worker& worker, const wire::command::ContextCreate& command,
                 wire::command::ContextCreate::Reply& reply) {
  static thread_local std::vector<uint64_t> limits;
  return make(worker, {command.context, command.legacy_stream, command.device, command.flags},
              false, reply, limits);
}

void execute(Worker& worker, const Request& request, const wire::command::ContextDestroy& command) {
  const auto context = worker.tables.contexts.share(command.context);
  if (!context) return worker.answer(request, CUDA_ERROR_INVALID_HANDLE);
  // A dead context has nothing that could be waited for; a load beside the loop still uses it.
  worker.completion.when_done(*context, [&worker, request, context](CUresult) {
    worker.send_text(*context, nullptr);
    worker.completion.when([context] { return context->loading == 0; },
                           [&worker, request, context](CUresult) {
                             if (context->alive) end_context(worker, context);
                             worker.answer(request, CUDA_SUCCESS);
                           });
  });
}

void execute(Worker& worker, const Request& request, const wire::command::ContextSynchronize&) {
  Context* current = worker.current();
  if (!current) return worker.answer(request, CUDA_ERROR_INVALID_CONTEXT);
  const auto context = worker.tables.contexts.share(current->id);
  worker.completion.when_done(*context, [&worker, request, context](CUresult result) {
    constexpr size_t keep_bytes = 64 << 20;
    if (result == CUDA_SUCCESS) worker.send_text(*context, nullptr);
    if (result == CUDA_SUCCESS && context->alive && context->loading == 0) {
      worker.make_current(*context);
      const bool idle =
          std::all_of(context->streams.begin(), context->streams.end(),
                      [](const auto& stream) { return stream->completed == stream->issued; });
      if (idle) context->staging.trim(keep_bytes);
    }
    worker.answer(request, result);
  });
}

CUresult execute(Worker& worker, const wire::command::ContextSetPeer& command,
                 wire::command::ContextSetPeer::Reply&) {
  Context* context = worker.current();
  const Context* peer = worker.tables.contexts.find(command.peer);
  if (!context || !peer || peer->device == context->device) return CUDA_ERROR_INVALID_CONTEXT;
  const bool has =
      std::find(context->peers.begin(), context->peers.end(), peer->id) != context->peers.end();
  if (command.reached == 0) {
    if (!has) return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
    std::erase(context->peers, peer->id);
    worker.memory.close(peer->device, context->device);
    return worker.driver().cuCtxDisablePeerAccess(peer->handle);
  }
  if (has) return CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
  // What the driver places itself, as globals and arrays, goes by its own switch.
  CUresult result = worker.driver().cuCtxEnablePeerAccess(peer->handle, 0);
  if (result != CUDA_SUCCESS) return result;
  result = worker.memory.open(peer->device, context->device);
  if (result == CUDA_SUCCESS) context->peers.push_back(peer->id);
  if (result != CUDA_SUCCESS) worker.driver().cuCtxDisablePeerAccess(peer->handle);
  return result;
}

CUresult execute(Worker& worker, const wire::command::DeviceSetViewer& command,
                 wire::command::DeviceSetViewer::Reply&) {
  if (command.device >= worker.devices.size() || command.viewer >= worker.devices.size() ||
      command.device == command.viewer) {
    return CUDA_ERROR_INVALID_DEVICE;
  }
  return command.open != 0 ? worker.memory.open(command.device, command.viewer)
                           : worker.memory.close(command.device, command.viewer);
}

CUresult execute(Worker& worker, const wire::command::ContextSetLimit& command,
                 wire::command::ContextSetLimit::Reply& reply) {
  if (!worker.current()) return CUDA_ERROR_INVALID_CONTEXT;
  const auto limit = static_cast<CUlimit>(command.limit);
  const CUresult result = worker.driver().cuCtxSetLimit(limit, command.value);
  size_t value = 0;
  if (result == CUDA_SUCCESS) worker.driver().cuCtxGetLimit(&value, limit);
  reply.value = value;
  return result;
}

}  // namespace outboard::worker
