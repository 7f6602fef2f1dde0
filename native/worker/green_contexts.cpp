// Green contexts: dividing devices, making and ending them.
// SPDX-License-Identifier: Apache-2.0
#include "worker/green_contexts.hpp"

#include <algorithm>
#include <cstring>

#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

constexpr size_t most_resources = 1 << 16;
constexpr uint32_t most_groups = 1 << 12;

/// Without what is internal to the driver.
CUdevResource shown(CUdevResource resource) {
  std::memset(resource._internal_padding, 0, sizeof resource._internal_padding);
  return resource;
}

}  // namespace

uint64_t DeviceResources::number(const CUdevResource& resource) {
  const std::string bytes(reinterpret_cast<const char*>(&resource), sizeof resource);
  if (const auto known = numbers_.find(bytes); known != numbers_.end()) return known->second;
  if (resources_.size() == most_resources) return 0;
  resources_.push_back(resource);
  return numbers_[bytes] = resources_.size();
}

const CUdevResource* DeviceResources::find(uint64_t number) const {
  return number - 1 < resources_.size() ? &resources_[number - 1] : nullptr;
}

uint64_t DeviceResources::add(CUdevResourceDesc descriptor) {
  if (descriptors_.size() == most_resources) return 0;
  descriptors_.push_back(descriptor);
  return descriptors_.size();
}

CUdevResourceDesc DeviceResources::find_descriptor(uint64_t number) const {
  return number - 1 < descriptors_.size() ? descriptors_[number - 1] : nullptr;
}

CUresult execute(Worker& worker, const wire::command::DeviceResource& command,
                 wire::command::DeviceResource::Reply& reply) {
  static thread_local CUdevResource answer;
  const auto type = static_cast<CUdevResourceType>(command.type);
  const Driver& driver = worker.driver();
  CUdevResource resource = {};
  CUresult result = CUDA_ERROR_INVALID_CONTEXT;
  if (command.green != 0) {
    const GreenContext* green = worker.tables.greens.find(command.green);
    if (green) result = driver.cuGreenCtxGetDevResource(green->handle, &resource, type);
  } else if (command.context != 0) {
    const Context* context = worker.tables.contexts.find(command.context);
    if (context) result = driver.cuCtxGetDevResource(context->handle, &resource, type);
  } else {
    CUdevice device = 0;
    result = worker.find_device(command.device, &device);
    if (result == CUDA_SUCCESS) result = driver.cuDeviceGetDevResource(device, &resource, type);
  }
  if (result != CUDA_SUCCESS) return result;
  reply.number = worker.device_resources.number(resource);
  answer = shown(resource);
  reply.resource = std::as_bytes(std::span(&answer, 1));
  return reply.number != 0 ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult execute(Worker& worker, const wire::command::ResourceSplit& command,
                 wire::command::ResourceSplit::Reply& reply) {
  static thread_local std::vector<CUdevResource> resources;
  static thread_local std::vector<uint64_t> numbers;
  const CUdevResource* input = worker.device_resources.find(command.resource);
  if (!input) return CUDA_ERROR_INVALID_RESOURCE_TYPE;
  unsigned groups = std::min(command.groups, most_groups);
  resources.assign(groups + 1, CUdevResource{});
  const CUresult result = worker.driver().cuDevSmResourceSplitByCount(
      groups != 0 ? resources.data() : nullptr, &groups, input, &resources.back(), command.flags,
      command.least);
  if (result != CUDA_SUCCESS) return result;
  reply.groups = groups;
  if (command.groups == 0) return CUDA_SUCCESS;
  groups = std::min<unsigned>(groups, static_cast<unsigned>(resources.size()) - 1);
  resources.erase(resources.begin() + groups, resources.end() - 1);
  numbers.clear();
  for (CUdevResource& resource : resources) {
    numbers.push_back(worker.device_resources.number(resource));
    resource = shown(resource);
  }
  reply.numbers = numbers;
  reply.resources = std::as_bytes(std::span(resources));
  return std::find(numbers.begin(), numbers.end(), 0) == numbers.end() ? CUDA_SUCCESS
                                                                       : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult execute(Worker& worker, const wire::command::ResourceDescribe& command,
                 wire::command::ResourceDescribe::Reply& reply) {
  std::vector<CUdevResource> resources;
  for (const uint64_t number : command.resources) {
    const CUdevResource* resource = worker.device_resources.find(number);
    if (!resource) return CUDA_ERROR_INVALID_RESOURCE_TYPE;
    resources.push_back(*resource);
  }
  CUdevResourceDesc descriptor = nullptr;
  const CUresult result = worker.driver().cuDevResourceGenerateDesc(
      &descriptor, resources.data(), static_cast<unsigned>(resources.size()));
  if (result != CUDA_SUCCESS) return result;
  reply.descriptor = worker.device_resources.add(descriptor);
  return reply.descriptor != 0 ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult execute(Worker& worker, const wire::command::GreenContextCreate& command,
                 wire::command::GreenContextCreate::Reply&) {
  if (!worker.accept_create(worker.tables.greens.may_insert(command.green)) ||
      !worker.accept_create(worker.tables.streams.may_insert(command.legacy_stream))) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  const auto context = worker.tables.contexts.share(command.context);
  if (!context || !context->primary) return CUDA_ERROR_INVALID_CONTEXT;
  const CUdevResourceDesc descriptor = worker.device_resources.find_descriptor(command.descriptor);
  if (!descriptor) return CUDA_ERROR_INVALID_VALUE;
  const Driver& driver = worker.driver();
  auto green = std::make_shared<GreenContext>();
  green->id = command.green;
  green->context = context.get();
  CUresult result = driver.cuGreenCtxCreate(&green->handle, descriptor,
                                            worker.devices[context->device].handle, command.flags);
  if (result != CUDA_SUCCESS) return result;
  result = driver.cuCtxFromGreenCtx(&green->current, green->handle);
  if (result == CUDA_SUCCESS) {
    worker.make_current(*context);
    green->legacy = worker.make_stream(context, StreamKind::legacy, 0, 0, &result, green);
  }
  if (!green->legacy) {
    driver.cuGreenCtxDestroy(green->handle);
    return result;
  }
  green->legacy->id = command.legacy_stream;
  worker.tables.streams.insert(command.legacy_stream, green->legacy);
  worker.tables.greens.insert(command.green, std::move(green));
  return CUDA_SUCCESS;
}

void end_green_context(Worker& worker, GreenContext& green) {
  const std::shared_ptr<GreenContext> self = worker.tables.greens.remove(green.id);
  if (!self) return;
  const auto streams = green.context->streams;
  for (const auto& stream : streams) {
    if (stream->green == self) worker.drop_stream(*stream);
  }
  worker.tables.streams.remove_where([&](const Stream& stream) { return stream.green == self; });
  green.legacy.reset();
  worker.make_current(*green.context);
  worker.driver().cuGreenCtxDestroy(green.handle);
}

void execute(Worker& worker, const Request& request,
             const wire::command::GreenContextDestroy& command) {
  const auto green = worker.tables.greens.share(command.green);
  if (!green) return worker.answer(request, CUDA_ERROR_INVALID_CONTEXT);
  const auto context = worker.tables.contexts.share(green->context->id);
  worker.completion.when_done(
      *context,
      [&worker, request, green, context](CUresult) {
        if (context->alive) end_green_context(worker, *green);
        worker.answer(request, CUDA_SUCCESS);
      },
      green.get());
}

}  // namespace outboard::worker
