// NVML's events: critical errors (XIDs), when a test says that a device has one.
// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <map>
#include <mutex>
#include <thread>

#include "nvml_api.hpp"

using namespace softgpu;

/// The devices that are registered, each with the error that was told last; 0: none.
struct nvmlEventSet_st {
  std::mutex mutex;
  std::map<int, uint64_t> told;
};

namespace {

constexpr auto look_every = std::chrono::milliseconds(20);

// An error is told once, and again when it was gone meanwhile.
bool next_event(nvmlEventSet_st& set, nvmlEventData_t* out) {
  const std::lock_guard<std::mutex> lock(set.mutex);
  for (auto& [index, told] : set.told) {
    uint64_t xid = 0;
    nvml_fault(index, "xid", &xid);
    if (xid == told) continue;
    told = xid;
    if (xid == 0) continue;
    *out = {};
    out->device = device_handle(index);
    out->eventType = nvmlEventTypeXidCriticalError;
    out->eventData = xid;
    return true;
  }
  return false;
}

}  // namespace

extern "C" {

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t* out) {
  if (!nvml_initialised()) return NVML_ERROR_UNINITIALIZED;
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *out = new nvmlEventSet_st;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
  delete set;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long* out) {
  return put(device, out, nvmlEventTypeXidCriticalError);
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types,
                                      nvmlEventSet_t set) {
  return with_device(device, [&](int index) {
    if (set == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
    if ((types & ~nvmlEventTypeXidCriticalError) != 0) return NVML_ERROR_NOT_SUPPORTED;
    const std::lock_guard<std::mutex> lock(set->mutex);
    set->told.emplace(index, 0);
    return NVML_SUCCESS;
  });
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t* out, unsigned int wait_ms) {
  if (set == nullptr || out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(wait_ms);
  while (!next_event(*set, out)) {
    if (std::chrono::steady_clock::now() >= until) return NVML_ERROR_TIMEOUT;
    std::this_thread::sleep_for(look_every);
  }
  return NVML_SUCCESS;
}
nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t* out, unsigned int wait_ms) {
  return nvmlEventSetWait_v2(set, out, wait_ms);
}

}  // extern "C"
