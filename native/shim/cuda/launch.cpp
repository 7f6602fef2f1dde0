// Kernel launches: limits checked here, parameters packed straight into the batch.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "base/log.hpp"
#include "generated/shim_api.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/event.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/parameters.hpp"
#include "shim/cuda/waiting.hpp"

namespace outboard::shim {
namespace {

struct Shape {
  unsigned grid_x, grid_y, grid_z;
  unsigned block_x, block_y, block_z;
  unsigned shared_bytes;
};

using AttributeBytes = std::span<const std::byte>;

// CUDA_LAUNCH_BLOCKING, read once.
bool blocking() {
  static const bool value = [] {
    const char* text = std::getenv("CUDA_LAUNCH_BLOCKING");
    return text != nullptr && std::strtol(text, nullptr, 10) != 0;
  }();
  return value;
}

// What CUDA reports at the call. Products are of values bounded before.
CUresult check_limits(const Function* function, const Device* device, const Shape& shape) {
  const auto limit = [device](CUdevice_attribute which) {
    return static_cast<unsigned>(device->attributes[which]);
  };
  const auto out = [](unsigned value, unsigned most) { return value - 1 >= most; };
  if (out(shape.grid_x, limit(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X)) ||
      out(shape.grid_y, limit(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y)) ||
      out(shape.grid_z, limit(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z)) ||
      out(shape.block_x, limit(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X)) ||
      out(shape.block_y, limit(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y)) ||
      out(shape.block_z, limit(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z))) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const uint64_t threads = uint64_t{shape.block_x} * shape.block_y * shape.block_z;
  if (threads > limit(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)) return CUDA_ERROR_INVALID_VALUE;
  const auto of_function = [function](CUfunction_attribute which) {
    return static_cast<unsigned>(function->attributes[which].load(std::memory_order_relaxed));
  };
  const unsigned most_threads = of_function(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
  if (most_threads != 0 && threads > most_threads) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  const unsigned most_shared = of_function(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
  if (shape.shared_bytes > most_shared) {
    // Without an opt-in the bound is the device's, less what the kernel itself declares.
    const unsigned fixed = of_function(CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
    const unsigned device_most = limit(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK);
    if (uint64_t{fixed} + shape.shared_bytes > device_most) return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

CUresult launch(CUfunction f, const Shape& shape, CUstream hStream, void** parameters, void** extra,
                uint32_t flags, AttributeBytes attributes) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS) {
    return result;
  }
  const Function* function = find(f);
  if (function == nullptr) [[unlikely]]
    return CUDA_ERROR_INVALID_HANDLE;
  if (stream->context != thread_state.current || function->module->home != context) [[unlikely]] {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  CUresult result = check_limits(function, context->device, shape);
  if (result != CUDA_SUCCESS) [[unlikely]]
    return result;
  const std::byte* buffer = nullptr;
  if (parameters == nullptr && function->parameter_count != 0) {
    size_t bytes = 0;
    if (extra == nullptr) return CUDA_ERROR_INVALID_VALUE;
    result = read_extra(extra, &buffer, &bytes);
    if (result != CUDA_SUCCESS) return result;
    if (buffer == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (bytes < function->parameters_bytes) {
      // NCCL's kernels take 4 KiB, of which each launch gives what it needs.
      static thread_local std::vector<std::byte> whole;
      whole.assign(buffer, buffer + bytes);
      whole.resize(function->parameters_bytes);
      buffer = whole.data();
    }
  }
  if (result = note_work(stream); result != CUDA_SUCCESS) [[unlikely]]
    return result;

  Reach reach(stream);
  if (!visible_window.empty()) [[unlikely]] {
    result = buffer != nullptr ? reach.add_packed(function, buffer)
                               : reach.add_parameters(function, parameters);
    if (result == CUDA_SUCCESS) result = reach.add_stored();
    if (result != CUDA_SUCCESS) return result;
  }

  wire::command::Launch command;
  command.stream = stream->head.id();
  command.function = function->head.id();
  command.grid_x = shape.grid_x;
  command.grid_y = shape.grid_y;
  command.grid_z = shape.grid_z;
  command.block_x = shape.block_x;
  command.block_y = shape.block_y;
  command.block_z = shape.block_z;
  command.shared_bytes = shape.shared_bytes;
  command.flags = flags;
  const size_t payload_bytes = wire::command::Launch::fixed_bytes +
                               wire::field_bytes(attributes.size()) +
                               wire::field_bytes(function->parameters_bytes);
  result = to_cuda(context->server->connection().send_raw(
      wire::Op::Launch, context->head.index, payload_bytes, &stream->progress,
      [&](wire::Writer& writer) {
        writer.raw(&command, wire::command::Launch::fixed_bytes);
        writer.field(attributes.data(), attributes.size());
        write_parameters(writer, function, parameters, buffer);
      }));
  reach.sent();
  if (result == CUDA_SUCCESS && blocking() && !is_captured(stream)) [[unlikely]] {
    return shim::cuStreamSynchronize(hStream);
  }
  return result;
}

constexpr uint32_t cooperative_flag = 1;

// What comes to any of these streams from now on waits for what is on all of them.
CUresult join(const std::vector<Stream*>& streams) {
  for (Stream* stream : streams) {
    for (Stream* other : streams) {
      if (other == stream || other->progress.idle()) continue;
      // Nothing on one server waits for another: we do.
      const bool together = other->context->server == stream->context->server;
      const CUresult result = together ? follow(stream, other) : wait_all(other);
      if (result != CUDA_SUCCESS) return result;
    }
  }
  return CUDA_SUCCESS;
}

// Whether an attribute is values alone, which mean the same on the server. Sets what is no
// attribute on the wire.
CUresult read_attribute(const CUlaunchAttribute& attribute, uint32_t* flags, bool* pass) {
  *pass = true;
  switch (attribute.id) {
    case CU_LAUNCH_ATTRIBUTE_IGNORE:
      *pass = false;
      return CUDA_SUCCESS;
    case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
      *pass = false;
      if (attribute.value.cooperative != 0) *flags |= cooperative_flag;
      return CUDA_SUCCESS;
    case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
    case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
    case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
    case CU_LAUNCH_ATTRIBUTE_PRIORITY:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION:
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
    case CU_LAUNCH_ATTRIBUTE_NVLINK_UTIL_CENTRIC_SCHEDULING:
      return CUDA_SUCCESS;
    default: {
      static const char said[] = "launch attribute";
      say_once(said,
               "the program launches a kernel with attribute %d, which is not supported; it gets "
               "CUDA_ERROR_NOT_SUPPORTED",
               static_cast<int>(attribute.id));
      return CUDA_ERROR_NOT_SUPPORTED;
    }
  }
}

// The event that the kernel triggers: when it is done, which is later than it might, and which CUDA
// allows.
CUevent event_of(const CUlaunchAttribute& attribute) {
  if (attribute.id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT) {
    return attribute.value.programmaticEvent.event;
  }
  return attribute.id == CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT
             ? attribute.value.launchCompletionEvent.event
             : nullptr;
}

}  // namespace

CUresult cuLaunchKernel(CUfunction f, unsigned int gridDimX, unsigned int gridDimY,
                        unsigned int gridDimZ, unsigned int blockDimX, unsigned int blockDimY,
                        unsigned int blockDimZ, unsigned int sharedMemBytes, CUstream hStream,
                        void** kernelParams, void** extra) {
  const Shape shape{gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes};
  return launch(f, shape, hStream, kernelParams, extra, 0, {});
}

CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned int gridDimX, unsigned int gridDimY,
                                   unsigned int gridDimZ, unsigned int blockDimX,
                                   unsigned int blockDimY, unsigned int blockDimZ,
                                   unsigned int sharedMemBytes, CUstream hStream,
                                   void** kernelParams) {
  const Shape shape{gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes};
  return launch(f, shape, hStream, kernelParams, nullptr, cooperative_flag, {});
}

CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction f, void** kernelParams,
                          void** extra) {
  constexpr unsigned max_attributes = 64;
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (config == nullptr || config->numAttrs > max_attributes ||
      (config->numAttrs != 0 && config->attrs == nullptr)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const Shape shape{config->gridDimX,  config->gridDimY,  config->gridDimZ,      config->blockDimX,
                    config->blockDimY, config->blockDimZ, config->sharedMemBytes};
  uint32_t flags = 0;
  unsigned count = 0, triggered = 0;
  CUlaunchAttribute attributes[max_attributes];
  CUevent events[max_attributes];
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    if (CUevent event = event_of(config->attrs[i])) {
      events[triggered++] = event;
      continue;
    }
    bool pass = false;
    const CUresult result = read_attribute(config->attrs[i], &flags, &pass);
    if (result != CUDA_SUCCESS) return result;
    if (!pass) continue;
    // Padding is the program's stack: it does not travel.
    CUlaunchAttribute& to = attributes[count++];
    std::memset(&to, 0, sizeof to);
    to.id = config->attrs[i].id;
    to.value = config->attrs[i].value;
  }
  CUresult result = launch(f, shape, config->hStream, kernelParams, extra, flags,
                           std::as_bytes(std::span(attributes, count)));
  for (unsigned i = 0; result == CUDA_SUCCESS && i < triggered; ++i) {
    result = shim::cuEventRecord(events[i], config->hStream);
  }
  return result;
}

// A barrier over all these devices within the kernels, which CUDA 13's headers do not have any
// more, is not served.
CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS* launchParamsList,
                                              unsigned int numDevices, unsigned int flags) {
  constexpr unsigned known = CUDA_COOPERATIVE_LAUNCH_MULTI_DEVICE_NO_PRE_LAUNCH_SYNC |
                             CUDA_COOPERATIVE_LAUNCH_MULTI_DEVICE_NO_POST_LAUNCH_SYNC;
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (launchParamsList == nullptr || numDevices == 0 ||
      numDevices > static_cast<unsigned>(device_count) || (flags & ~known) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const std::span launches(launchParamsList, numDevices);
  std::vector<Stream*> on;
  for (const CUDA_LAUNCH_PARAMS& one : launches) {
    Stream* stream = streams.find(one.hStream);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    for (const Stream* other : on) {
      if (other->context->device == stream->context->device) return CUDA_ERROR_INVALID_DEVICE;
    }
    on.push_back(stream);
  }
  CUresult result = CUDA_SUCCESS;
  if ((flags & CUDA_COOPERATIVE_LAUNCH_MULTI_DEVICE_NO_PRE_LAUNCH_SYNC) == 0) result = join(on);
  for (size_t i = 0; result == CUDA_SUCCESS && i < on.size(); ++i) {
    const CUDA_LAUNCH_PARAMS& one = launches[i];
    const Shape shape{one.gridDimX,  one.gridDimY,  one.gridDimZ,      one.blockDimX,
                      one.blockDimY, one.blockDimZ, one.sharedMemBytes};
    Context* const current = std::exchange(thread_state.current, on[i]->context);
    result =
        launch(one.function, shape, one.hStream, one.kernelParams, nullptr, cooperative_flag, {});
    thread_state.current = current;
  }
  if (result == CUDA_SUCCESS &&
      (flags & CUDA_COOPERATIVE_LAUNCH_MULTI_DEVICE_NO_POST_LAUNCH_SYNC) == 0) {
    result = join(on);
  }
  return result;
}

}  // namespace outboard::shim
