// The launch interface of CUDA 3: shape and arguments are set one by one and stay with the kernel.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "generated/shim_api.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

struct EarlyLaunch {
  unsigned block[3] = {1, 1, 1};
  unsigned shared_bytes = 0;
  size_t bytes = 0;  ///< of the arguments, as the program says
  std::vector<std::byte> arguments;
};

constinit std::mutex mutex;

// By the id of the kernel, which no other will have. With the mutex held.
EarlyLaunch& of(const Function* function) {
  static auto* const launches = new std::map<uint64_t, EarlyLaunch>;
  return (*launches)[function->head.id()];
}

template <typename Change>
CUresult change(CUfunction value, Change&& apply) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  const Function* function = find(value);
  if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const std::lock_guard guard(mutex);
  return apply(of(function));
}

CUresult set_argument(CUfunction function, int offset, const void* value, size_t bytes) {
  constexpr size_t most_bytes = 4096;
  if (offset < 0 || value == nullptr || static_cast<size_t>(offset) + bytes > most_bytes) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return change(function, [&](EarlyLaunch& launch) {
    const size_t end = static_cast<size_t>(offset) + bytes;
    if (launch.arguments.size() < end) launch.arguments.resize(end);
    std::memcpy(launch.arguments.data() + offset, value, bytes);
    return CUDA_SUCCESS;
  });
}

}  // namespace

CUresult cuFuncSetBlockShape(CUfunction hfunc, int x, int y, int z) {
  if (x <= 0 || y <= 0 || z <= 0) return CUDA_ERROR_INVALID_VALUE;
  return change(hfunc, [&](EarlyLaunch& launch) {
    const int shape[3] = {x, y, z};
    for (int i = 0; i < 3; ++i) launch.block[i] = static_cast<unsigned>(shape[i]);
    return CUDA_SUCCESS;
  });
}

CUresult cuFuncSetSharedSize(CUfunction hfunc, unsigned int bytes) {
  return change(hfunc, [&](EarlyLaunch& launch) {
    launch.shared_bytes = bytes;
    return CUDA_SUCCESS;
  });
}

CUresult cuParamSetSize(CUfunction hfunc, unsigned int numbytes) {
  return change(hfunc, [&](EarlyLaunch& launch) {
    launch.bytes = numbytes;
    return CUDA_SUCCESS;
  });
}

CUresult cuParamSeti(CUfunction hfunc, int offset, unsigned int value) {
  return set_argument(hfunc, offset, &value, sizeof value);
}
CUresult cuParamSetf(CUfunction hfunc, int offset, float value) {
  return set_argument(hfunc, offset, &value, sizeof value);
}
CUresult cuParamSetv(CUfunction hfunc, int offset, void* ptr, unsigned int numbytes) {
  return set_argument(hfunc, offset, ptr, numbytes);
}

CUresult cuLaunchGridAsync(CUfunction f, int grid_width, int grid_height, CUstream hStream) {
  if (grid_width <= 0 || grid_height <= 0) return CUDA_ERROR_INVALID_VALUE;
  EarlyLaunch launch;
  const CUresult result = change(f, [&](const EarlyLaunch& set) {
    launch = set;
    return CUDA_SUCCESS;
  });
  if (result != CUDA_SUCCESS) return result;
  launch.arguments.resize(launch.bytes);
  void* arguments[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, launch.arguments.data(),
                       CU_LAUNCH_PARAM_BUFFER_SIZE, &launch.bytes, CU_LAUNCH_PARAM_END};
  return shim::cuLaunchKernel(
      f, static_cast<unsigned>(grid_width), static_cast<unsigned>(grid_height), 1, launch.block[0],
      launch.block[1], launch.block[2], launch.shared_bytes, hStream, nullptr, arguments);
}

CUresult cuLaunchGrid(CUfunction f, int grid_width, int grid_height) {
  return shim::cuLaunchGridAsync(f, grid_width, grid_height, nullptr);
}
CUresult cuLaunch(CUfunction f) { return shim::cuLaunchGrid(f, 1, 1); }

}  // namespace outboard::shim
