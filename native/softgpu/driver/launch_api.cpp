// Entry points that launch kernels.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "config.hpp"
#include "guard.hpp"
#include "launches.hpp"
#include "occupancy.hpp"
#include "submit.hpp"

namespace softgpu {
namespace {

CUresult check_shape(const Function& function, const LaunchShape& shape) {
  const KernelInfo& info = function.info();
  constexpr unsigned kGridLimit[3] = {0x7fffffff, 65535, 65535};
  constexpr unsigned kBlockLimit[3] = {1024, 1024, 64};
  uint64_t threads = 1;
  for (int i = 0; i < 3; ++i) {
    if (shape.grid[i] == 0 || shape.grid[i] > kGridLimit[i]) return CUDA_ERROR_INVALID_VALUE;
    if (shape.block[i] == 0 || shape.block[i] > kBlockLimit[i]) return CUDA_ERROR_INVALID_VALUE;
    threads *= shape.block[i];
  }
  if (threads > kMaxThreadsPerBlock) return CUDA_ERROR_INVALID_VALUE;
  if (threads > info.max_threads) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  if (shape.dynamic_shared_bytes > static_cast<unsigned>(function.max_dynamic_shared())) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (shape.cooperative) {
    uint64_t blocks = uint64_t{shape.grid[0]} * shape.grid[1] * shape.grid[2];
    int resident = blocks_per_sm(info, static_cast<int>(threads), shape.dynamic_shared_bytes);
    if (blocks > static_cast<uint64_t>(resident) * kSmCount) {
      return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
    }
  }
  return CUDA_SUCCESS;
}

/// The packed form: pairs of a tag and a pointer, ended by CU_LAUNCH_PARAM_END.
CUresult copy_packed(void** extra, std::vector<std::byte>* out) {
  const void* buffer = nullptr;
  const size_t* size = nullptr;
  for (; *extra != CU_LAUNCH_PARAM_END; extra += 2) {
    if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) {
      buffer = extra[1];
    } else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE) {
      size = static_cast<const size_t*>(extra[1]);
    } else {
      return CUDA_ERROR_INVALID_VALUE;
    }
  }
  if (size == nullptr || (buffer == nullptr && *size > 0) || *size > (64u << 10)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (*size > 0) std::memcpy(out->data(), buffer, std::min(*size, out->size()));
  return CUDA_SUCCESS;
}

}  // namespace

CUresult launch_operation(std::shared_ptr<Function> function, const LaunchShape& shape,
                          void** parameters, void** extra, KernelOperation* out) {
  if (CUresult r = check_shape(*function, shape); r != CUDA_SUCCESS) return r;
  if (parameters != nullptr && extra != nullptr) return CUDA_ERROR_INVALID_VALUE;
  const KernelInfo& info = function->info();
  out->params.assign(info.param_bytes, std::byte{0});
  if (extra != nullptr) {
    if (CUresult r = copy_packed(extra, &out->params); r != CUDA_SUCCESS) return r;
  } else if (!info.params.empty()) {
    if (parameters == nullptr) return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < info.params.size(); ++i) {
      if (parameters[i] == nullptr) return CUDA_ERROR_INVALID_VALUE;
      std::memcpy(out->params.data() + info.params[i].offset, parameters[i], info.params[i].size);
    }
  }
  std::copy_n(shape.grid, 3, out->launch.grid);
  std::copy_n(shape.block, 3, out->launch.block);
  out->launch.dynamic_shared_bytes = shape.dynamic_shared_bytes;
  out->launch.cooperative = shape.cooperative;
  if (const auto module = function->module.lock()) {
    for (const ReferenceInfo& one : info.references) {
      out->references.emplace_back(one.address, module->view_of(one));
    }
  }
  out->function = std::move(function);
  return CUDA_SUCCESS;
}

}  // namespace softgpu

using namespace softgpu;

namespace {

CUresult launch(CUfunction handle, const LaunchShape& shape, CUstream stream, void** parameters,
                void** extra) {
  return with_context([&](Context& context) {
    std::shared_ptr<Function> function;
    if (CUresult r = find_function(handle, context, &function); r != CUDA_SUCCESS) return r;
    KernelOperation op;
    CUresult r = launch_operation(std::move(function), shape, parameters, extra, &op);
    return r != CUDA_SUCCESS ? r : submit(context, stream, std::move(op));
  });
}

/// What comes to any of these streams from now on waits for what is on all of them.
void join(const std::vector<std::shared_ptr<Stream>>& streams) {
  for (auto& stream : streams) {
    for (auto& other : streams) {
      if (other != stream) stream->submit(FollowOperation{other, other->issued()});
    }
  }
}

/// What the attributes of a launch ask for that makes a difference here. `events` are to be
/// triggered: when the kernel is done, which CUDA allows.
CUresult read_attributes(const CUlaunchConfig& config, LaunchShape* shape,
                         std::vector<CUevent>* events) {
  if (config.numAttrs > 0 && config.attrs == nullptr) return CUDA_ERROR_INVALID_VALUE;
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    const CUlaunchAttribute& a = config.attrs[i];
    switch (a.id) {
      case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
        shape->cooperative = a.value.cooperative != 0;
        break;
      case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
        if (a.value.clusterDim.x > 1 || a.value.clusterDim.y > 1 || a.value.clusterDim.z > 1) {
          return CUDA_ERROR_INVALID_CLUSTER_SIZE;
        }
        break;
      case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT:
        events->push_back(a.value.programmaticEvent.event);
        break;
      case CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT:
        events->push_back(a.value.launchCompletionEvent.event);
        break;
      case CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE:
        return CUDA_ERROR_NOT_SUPPORTED;
      default:  // hints
        break;
    }
  }
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" CUresult cuLaunchKernel(CUfunction f, unsigned int grid_x, unsigned int grid_y,
                                   unsigned int grid_z, unsigned int block_x, unsigned int block_y,
                                   unsigned int block_z, unsigned int shared_bytes, CUstream stream,
                                   void** parameters, void** extra) {
  return launch(f, {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, false},
                stream, parameters, extra);
}

extern "C" CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned int grid_x,
                                              unsigned int grid_y, unsigned int grid_z,
                                              unsigned int block_x, unsigned int block_y,
                                              unsigned int block_z, unsigned int shared_bytes,
                                              CUstream stream, void** parameters) {
  return launch(f, {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, true},
                stream, parameters, nullptr);
}

extern "C" CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction f, void** parameters,
                                     void** extra) {
  if (config == nullptr) return CUDA_ERROR_INVALID_VALUE;
  LaunchShape shape{{config->gridDimX, config->gridDimY, config->gridDimZ},
                    {config->blockDimX, config->blockDimY, config->blockDimZ},
                    config->sharedMemBytes,
                    false};
  std::vector<CUevent> events;
  if (CUresult r = read_attributes(*config, &shape, &events); r != CUDA_SUCCESS) return r;
  CUresult result = launch(f, shape, config->hStream, parameters, extra);
  for (CUevent event : events) {
    if (result == CUDA_SUCCESS) result = cuEventRecord(event, config->hStream);
  }
  return result;
}

extern "C" CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS* list,
                                                         unsigned int count, unsigned int flags) {
  return with_context([&](Context&) -> CUresult {
    constexpr unsigned kKnown = CUDA_COOPERATIVE_LAUNCH_MULTI_DEVICE_NO_PRE_LAUNCH_SYNC |
                                CUDA_COOPERATIVE_LAUNCH_MULTI_DEVICE_NO_POST_LAUNCH_SYNC;
    if (list == nullptr || count == 0 || count > Driver::get().devices.size() ||
        (flags & ~kKnown) != 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    std::vector<std::shared_ptr<Stream>> on;
    for (unsigned i = 0; i < count; ++i) {
      std::shared_ptr<Stream> stream = streams().find(list[i].hStream);
      if (!stream || !stream->context.lock()) return CUDA_ERROR_INVALID_HANDLE;
      on.push_back(std::move(stream));
    }
    if ((flags & CUDA_COOPERATIVE_LAUNCH_MULTI_DEVICE_NO_PRE_LAUNCH_SYNC) == 0) join(on);
    for (unsigned i = 0; i < count; ++i) {
      const CUDA_LAUNCH_PARAMS& one = list[i];
      std::shared_ptr<Context> context = on[i]->context.lock();
      std::shared_ptr<Function> function;
      if (CUresult r = find_function(one.function, *context, &function); r != CUDA_SUCCESS)
        return r;
      LaunchShape shape{{one.gridDimX, one.gridDimY, one.gridDimZ},
                        {one.blockDimX, one.blockDimY, one.blockDimZ},
                        one.sharedMemBytes,
                        true};
      KernelOperation op;
      CUresult r = launch_operation(std::move(function), shape, one.kernelParams, nullptr, &op);
      if (r == CUDA_SUCCESS) r = submit(*context, one.hStream, std::move(op));
      if (r != CUDA_SUCCESS) return r;
    }
    if ((flags & CUDA_COOPERATIVE_LAUNCH_MULTI_DEVICE_NO_POST_LAUNCH_SYNC) == 0) join(on);
    return CUDA_SUCCESS;
  });
}
