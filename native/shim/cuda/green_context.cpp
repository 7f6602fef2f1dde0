// Green contexts: dividing a device, parts of it as contexts, their streams.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/green_context.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "generated/shim_api.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/stream.hpp"
#include "shim/cuda/waiting.hpp"
#include "tables.hpp"

namespace outboard::shim {
namespace {

// What a CUdevResource of ours holds where the driver's has its own: the server's driver needs its
// bytes back, which stay there under a number.
struct ResourceName {
  uint64_t number;
  uint32_t ordinal;
};
static_assert(sizeof(ResourceName) <= sizeof(CUdevResource::_internal_padding));

CUdevResource named(CUdevResource resource, const Device* device, uint64_t number) {
  const ResourceName name{number, static_cast<uint32_t>(device->ordinal)};
  std::memcpy(resource._internal_padding, &name, sizeof name);
  return resource;
}

// Null where the structure did not come from us.
Device* read_name(const CUdevResource& resource, uint64_t* number) {
  ResourceName name{};
  std::memcpy(&name, resource._internal_padding, sizeof name);
  *number = name.number;
  return name.number != 0 ? find_device(static_cast<CUdevice>(name.ordinal)) : nullptr;
}

template <typename Command>
CUresult call(const Device* device, const Command& command, client::Answer<Command>* answer) {
  device->server->connection().call(command, 0, answer);
  return to_cuda(answer->result);
}

CUresult resource_of(const Device* device, uint64_t context, uint64_t green, CUdevResource* out,
                     CUdevResourceType type) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  client::Answer<wire::command::DeviceResource> answer;
  const wire::command::DeviceResource command{.device = device->index,
                                              .context = context,
                                              .green = green,
                                              .type = static_cast<uint32_t>(type)};
  const CUresult result = call(device, command, &answer);
  if (result != CUDA_SUCCESS) return result;
  CUdevResource resource;
  if (answer.reply.resource.size() != sizeof resource) return CUDA_ERROR_UNKNOWN;
  std::memcpy(&resource, answer.reply.resource.data(), sizeof resource);
  *out = named(resource, device, answer.reply.number);
  return CUDA_SUCCESS;
}

// The green context, if it lives.
CUresult enter(CUgreenCtx value, GreenContext** out) {
  if (const CUresult result = shim::enter(); result != CUDA_SUCCESS) return result;
  *out = find(value);
  if (*out == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if ((*out)->destroyed.load()) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  return check((*out)->context);
}

// What the streams that a green context leaves behind belong to from then on: every call with one
// finds its context destroyed, and the program cannot end them.
Context* ended_context(Device* device) {
  const std::lock_guard guard(device->mutex);
  if (device->ended == nullptr) {
    Context* context = contexts.take();
    if (context == nullptr) return nullptr;
    context->server = device->server;
    context->device = device;
    context->destroyed.store(true);
    context->trouble.store(1);
    device->ended = context;
  }
  return device->ended;
}

void leave_streams(GreenContext* green, Context* to) {
  client::Server* server = green->context->server;
  streams.for_each([&](Stream* stream) {
    if (stream->green != green || stream->context != green->context) return;
    abandon(stream);
    server->bulk().forget(stream->head.id());
    stream->context = to;
  });
}

CUresult open(GreenContext* green, Context* context, uint64_t descriptor, unsigned flags) {
  static constinit std::atomic<uint64_t> last_number{1u << 20};  // beyond those of contexts
  Stream* legacy = streams.take();
  if (legacy == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  legacy->context = context;
  legacy->green = green;
  legacy->legacy = true;
  green->context = context;
  green->legacy = legacy;
  green->number = ++last_number;
  client::Answer<wire::command::GreenContextCreate> answer;
  const CUresult result = call(context->device,
                               wire::command::GreenContextCreate{.green = green->head.id(),
                                                                 .context = context->head.id(),
                                                                 .legacy_stream = legacy->head.id(),
                                                                 .descriptor = descriptor,
                                                                 .flags = flags},
                               &answer);
  if (result != CUDA_SUCCESS) streams.give(legacy);
  return result;
}

}  // namespace

CUresult synchronize(GreenContext* green) {
  Context* context = green->context;
  if (const CUresult result = check_context_unsafe(context, green); result != CUDA_SUCCESS) {
    return result;
  }
  std::vector<Stream*> busy;
  streams.for_each([&](Stream* stream) {
    if (stream->green == green && !stream->progress.idle()) busy.push_back(stream);
  });
  for (Stream* stream : busy) {
    if (const CUresult result = wait_all(stream); result != CUDA_SUCCESS) return result;
  }
  if (const CUresult fetched = fetch_views(); fetched != CUDA_SUCCESS) return fetched;
  return check(context);
}

void forget_green_contexts(const Context* context) {
  green_contexts.for_each([context](GreenContext* green) {
    if (green->context != context || green->destroyed.exchange(true)) return;
    tables::context_destroyed(converted(green));
    green->legacy = nullptr;  // went with the context's streams
  });
}

// ---- parts of a device
// ------------------------------------------------------------------------------

CUresult cuDeviceGetDevResource(CUdevice device, CUdevResource* resource, CUdevResourceType type) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  const Device* found = find_device(device);
  if (found == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  return resource_of(found, 0, 0, resource, type);
}

CUresult cuCtxGetDevResource(CUcontext hCtx, CUdevResource* resource, CUdevResourceType type) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Context* context = find(hCtx);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (const CUresult result = check(context); result != CUDA_SUCCESS) return result;
  const GreenContext* green = green_contexts.find(hCtx);
  return resource_of(context->device, context->head.id(), green != nullptr ? green->head.id() : 0,
                     resource, type);
}

CUresult cuGreenCtxGetDevResource(CUgreenCtx hCtx, CUdevResource* resource,
                                  CUdevResourceType type) {
  GreenContext* green = nullptr;
  if (const CUresult result = enter(hCtx, &green); result != CUDA_SUCCESS) return result;
  return resource_of(green->context->device, 0, green->head.id(), resource, type);
}

CUresult cuDevSmResourceSplitByCount(CUdevResource* result, unsigned int* nbGroups,
                                     const CUdevResource* input, CUdevResource* remaining,
                                     unsigned int useFlags, unsigned int minCount) {
  constexpr unsigned most_groups = 1024;  // more than a device has multiprocessors
  if (const CUresult entered = enter(); entered != CUDA_SUCCESS) return entered;
  if (nbGroups == nullptr || input == nullptr || (result != nullptr && *nbGroups == 0)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  uint64_t number = 0;
  const Device* device = read_name(*input, &number);
  if (input->type != CU_DEV_RESOURCE_TYPE_SM || device == nullptr) {
    return CUDA_ERROR_INVALID_RESOURCE_TYPE;
  }
  client::Answer<wire::command::ResourceSplit> answer;
  const wire::command::ResourceSplit command{
      .resource = number,
      .groups = result != nullptr ? std::min(*nbGroups, most_groups) : 0,
      .flags = useFlags,
      .least = minCount};
  if (const CUresult called = call(device, command, &answer); called != CUDA_SUCCESS) return called;
  if (result == nullptr) {
    *nbGroups = answer.reply.groups;
    return CUDA_SUCCESS;
  }
  const auto& numbers = answer.reply.numbers;
  if (numbers.empty() || numbers.size() > size_t{command.groups} + 1 ||
      answer.reply.resources.size() != numbers.size() * sizeof(CUdevResource)) {
    return CUDA_ERROR_UNKNOWN;
  }
  const size_t groups = numbers.size() - 1;
  for (size_t i = 0; i <= groups; ++i) {
    CUdevResource* to = i < groups ? &result[i] : remaining;
    if (to == nullptr) continue;
    CUdevResource resource;
    std::memcpy(&resource, answer.reply.resources.data() + i * sizeof resource, sizeof resource);
    *to = named(resource, device, numbers[i]);
  }
  *nbGroups = static_cast<unsigned>(groups);
  return CUDA_SUCCESS;
}

CUresult cuDevResourceGenerateDesc(CUdevResourceDesc* phDesc, CUdevResource* resources,
                                   unsigned int nbResources) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (phDesc == nullptr || resources == nullptr || nbResources == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  std::vector<uint64_t> numbers(nbResources);
  Device* device = nullptr;
  for (unsigned i = 0; i < nbResources; ++i) {
    Device* of = read_name(resources[i], &numbers[i]);
    if (resources[i].type != CU_DEV_RESOURCE_TYPE_SM || of == nullptr) {
      return CUDA_ERROR_INVALID_RESOURCE_TYPE;
    }
    if (device != nullptr && of != device) return CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION;
    device = of;
  }
  client::Answer<wire::command::ResourceDescribe> answer;
  const CUresult result =
      call(device, wire::command::ResourceDescribe{.resources = numbers}, &answer);
  if (result != CUDA_SUCCESS) return result;
  ResourceDescriptor* descriptor = resource_descriptors.take();
  if (descriptor == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  descriptor->device = device;
  descriptor->number = answer.reply.descriptor;
  *phDesc = reinterpret_cast<CUdevResourceDesc>(descriptor);
  return CUDA_SUCCESS;
}

// ---- creation and end
// ------------------------------------------------------------------------------

CUresult cuGreenCtxCreate(CUgreenCtx* phCtx, CUdevResourceDesc desc, CUdevice dev,
                          unsigned int flags) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  const ResourceDescriptor* descriptor = resource_descriptors.find(desc);
  if (phCtx == nullptr || descriptor == nullptr || flags != CU_GREEN_CTX_DEFAULT_STREAM) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Device* device = find_device(dev);
  if (device == nullptr || descriptor->device != device) return CUDA_ERROR_INVALID_DEVICE;
  GreenContext* green = green_contexts.take();
  if (green == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  Context* context = nullptr;
  CUresult result = retain_primary(device, &context);
  if (result == CUDA_SUCCESS) {
    result = open(green, context, descriptor->number, flags);
    if (result != CUDA_SUCCESS) release_primary(device);
  }
  if (result != CUDA_SUCCESS) {
    green_contexts.give(green);
    return result;
  }
  *phCtx = handle(green);
  return CUDA_SUCCESS;
}

CUresult cuGreenCtxDestroy(CUgreenCtx hCtx) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  GreenContext* green = find(hCtx);
  if (green == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  Device* device = green->context->device;
  Context* ended = ended_context(device);
  if (ended == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  // The slot stays taken: threads that have it current must find it destroyed, not another one.
  if (green->destroyed.exchange(true)) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  tables::context_destroyed(converted(green));
  if (thread_state.green == green) thread_state.current = ended;
  client::Answer<wire::command::GreenContextDestroy> answer;
  const CUresult result =
      call(device, wire::command::GreenContextDestroy{.green = green->head.id()}, &answer);
  leave_streams(green, ended);
  for (std::atomic<Stream*>* own : {&green->whole.gather, &green->whole.gate}) {
    if (Stream* stream = own->exchange(nullptr)) streams.give(stream);
  }
  release_primary(device);
  return result == CUDA_ERROR_DEVICE_UNAVAILABLE ? result : CUDA_SUCCESS;
}

CUresult cuCtxFromGreenCtx(CUcontext* pContext, CUgreenCtx hCtx) {
  GreenContext* green = nullptr;
  if (const CUresult result = enter(hCtx, &green); result != CUDA_SUCCESS) return result;
  if (pContext == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *pContext = converted(green);
  return CUDA_SUCCESS;
}

CUresult cuGreenCtxGetId(CUgreenCtx greenCtx, unsigned long long* greenCtxId) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (greenCtxId == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const GreenContext* green = greenCtx != nullptr ? find(greenCtx) : thread_state.green;
  if (green == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (green->destroyed.load()) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  *greenCtxId = green->number;
  return CUDA_SUCCESS;
}

// ---- streams and events
// ----------------------------------------------------------------------------

CUresult cuGreenCtxStreamCreate(CUstream* phStream, CUgreenCtx greenCtx, unsigned int flags,
                                int priority) {
  GreenContext* green = nullptr;
  if (const CUresult result = enter(greenCtx, &green); result != CUDA_SUCCESS) return result;
  if (phStream == nullptr || flags != CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
  Stream* stream = nullptr;
  const CUresult result = make_stream(green->context, green, flags, priority, &stream);
  if (result == CUDA_SUCCESS) *phStream = handle(stream);
  return result;
}

CUresult cuStreamGetGreenCtx(CUstream hStream, CUgreenCtx* phCtx) {
  CUcontext context = nullptr;
  return shim::cuStreamGetCtx_v2(hStream, &context, phCtx);
}

CUresult cuGreenCtxRecordEvent(CUgreenCtx hCtx, CUevent hEvent) {
  GreenContext* green = nullptr;
  const CUresult result = enter(hCtx, &green);
  return result == CUDA_SUCCESS ? record_whole(green->context, green, hEvent) : result;
}

CUresult cuGreenCtxWaitEvent(CUgreenCtx hCtx, CUevent hEvent) {
  GreenContext* green = nullptr;
  const CUresult result = enter(hCtx, &green);
  return result == CUDA_SUCCESS ? wait_whole(green->context, green, hEvent) : result;
}

}  // namespace outboard::shim
