// Entry points of CUDA 3's launches: shape and arguments are set one by one and stay with the
// kernel. SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "function.hpp"
#include "guard.hpp"

using namespace softgpu;

namespace {

struct EarlyLaunch {
  unsigned block[3] = {1, 1, 1};
  unsigned shared_bytes = 0;
  size_t bytes = 0;
  std::vector<std::byte> arguments;
};

std::mutex& mutex = *new std::mutex;
std::map<CUfunction, EarlyLaunch>& launches = *new std::map<CUfunction, EarlyLaunch>;

/// `call(EarlyLaunch&)` with what is set for the kernel, under a lock.
template <class Call>
CUresult with_launch(CUfunction handle, Call&& call) noexcept {
  return with_context([&](Context& context) {
    std::shared_ptr<Function> function;
    if (CUresult r = find_function(handle, context, &function); r != CUDA_SUCCESS) return r;
    std::lock_guard lock(mutex);
    call(launches[handle]);
    return CUDA_SUCCESS;
  });
}

CUresult set_argument(CUfunction handle, int offset, const void* value, size_t bytes) {
  if (offset < 0 || value == nullptr || offset + bytes > 4096) return CUDA_ERROR_INVALID_VALUE;
  return with_launch(handle, [&](EarlyLaunch& launch) {
    const size_t end = static_cast<size_t>(offset) + bytes;
    if (launch.arguments.size() < end) launch.arguments.resize(end);
    std::memcpy(launch.arguments.data() + offset, value, bytes);
  });
}

}  // namespace

extern "C" CUresult cuFuncSetBlockShape(CUfunction handle, int x, int y, int z) {
  if (x <= 0 || y <= 0 || z <= 0) return CUDA_ERROR_INVALID_VALUE;
  return with_launch(handle, [&](EarlyLaunch& launch) {
    launch.block[0] = static_cast<unsigned>(x);
    launch.block[1] = static_cast<unsigned>(y);
    launch.block[2] = static_cast<unsigned>(z);
  });
}
extern "C" CUresult cuFuncSetSharedSize(CUfunction handle, unsigned int bytes) {
  return with_launch(handle, [&](EarlyLaunch& launch) { launch.shared_bytes = bytes; });
}
extern "C" CUresult cuParamSetSize(CUfunction handle, unsigned int bytes) {
  return with_launch(handle, [&](EarlyLaunch& launch) { launch.bytes = bytes; });
}
extern "C" CUresult cuParamSeti(CUfunction handle, int offset, unsigned int value) {
  return set_argument(handle, offset, &value, sizeof value);
}
extern "C" CUresult cuParamSetf(CUfunction handle, int offset, float value) {
  return set_argument(handle, offset, &value, sizeof value);
}
extern "C" CUresult cuParamSetv(CUfunction handle, int offset, void* value, unsigned int bytes) {
  return set_argument(handle, offset, value, bytes);
}

extern "C" CUresult cuLaunchGridAsync(CUfunction handle, int width, int height, CUstream stream) {
  if (width <= 0 || height <= 0) return CUDA_ERROR_INVALID_VALUE;
  EarlyLaunch launch;
  const CUresult r = with_launch(handle, [&](EarlyLaunch& set) { launch = set; });
  if (r != CUDA_SUCCESS) return r;
  launch.arguments.resize(launch.bytes);
  void* extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, launch.arguments.data(),
                   CU_LAUNCH_PARAM_BUFFER_SIZE, &launch.bytes, CU_LAUNCH_PARAM_END};
  return cuLaunchKernel(handle, static_cast<unsigned>(width), static_cast<unsigned>(height), 1,
                        launch.block[0], launch.block[1], launch.block[2], launch.shared_bytes,
                        stream, nullptr, extra);
}
extern "C" CUresult cuLaunchGrid(CUfunction handle, int width, int height) {
  return cuLaunchGridAsync(handle, width, height, nullptr);
}
extern "C" CUresult cuLaunch(CUfunction handle) { return cuLaunchGrid(handle, 1, 1); }
