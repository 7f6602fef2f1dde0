// Who wants to be told that a device's memory is over budget, the same for every libcuda.so.1.
// SPDX-License-Identifier: Apache-2.0
#include "notifications.hpp"

#include <map>
#include <mutex>

namespace outboard {
namespace {

struct Registered {
  std::mutex mutex;
  std::map<uintptr_t, CUdevice> devices;  ///< by handle
  uintptr_t next = 0x1000;
};

Registered& registered() {
  static auto* const instance = new Registered;
  return *instance;
}

}  // namespace

CUresult add_notification(CUdevice device, CUasyncCallback function, void*,
                          CUasyncCallbackHandle* out) {
  if (function == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard guard(registered().mutex);
  const uintptr_t handle = registered().next += 0x10;
  registered().devices.emplace(handle, device);
  *out = reinterpret_cast<CUasyncCallbackHandle>(handle);
  return CUDA_SUCCESS;
}

CUresult remove_notification(CUdevice device, CUasyncCallbackHandle handle) {
  const std::lock_guard guard(registered().mutex);
  const auto found = registered().devices.find(reinterpret_cast<uintptr_t>(handle));
  if (found == registered().devices.end() || found->second != device) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  registered().devices.erase(found);
  return CUDA_SUCCESS;
}

}  // namespace outboard
