// NVML's API as this library exports it, and the device behind a handle.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#define NVML_NO_UNVERSIONED_FUNC_DEFS
#pragma GCC visibility push(default)
#include <nvml.h>
#pragma GCC visibility pop

#include <cstddef>

#include "config.hpp"
#include "faults.hpp"
#include "identity.hpp"

namespace softgpu {

inline constexpr char kNvmlDriverVersion[] = "580.0.0-softgpu";
inline constexpr char kNvmlVersion[] = "13.580.0";

bool nvml_initialised();
/// The index of the device that a handle names, or −1.
int device_index(nvmlDevice_t handle);
nvmlDevice_t device_handle(int index);

/// Copies a text out, or says that the buffer is too small.
nvmlReturn_t put_text(char* out, unsigned int length, const char* text);

/// For calls about one device: `call(int index)`.
template <class Call>
nvmlReturn_t with_device(nvmlDevice_t handle, Call&& call) {
  if (!nvml_initialised()) return NVML_ERROR_UNINITIALIZED;
  int index = device_index(handle);
  if (index < 0) return NVML_ERROR_INVALID_ARGUMENT;
  uint64_t lost = 0;
  if (nvml_fault(index, "lost", &lost) && lost != 0) return NVML_ERROR_GPU_IS_LOST;
  return call(index);
}

/// For calls that answer one number that is the same for every device.
template <class T, class V>
nvmlReturn_t put(nvmlDevice_t handle, T* out, V value) {
  return with_device(handle, [&](int) {
    if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
    *out = static_cast<T>(value);
    return NVML_SUCCESS;
  });
}

}  // namespace softgpu
