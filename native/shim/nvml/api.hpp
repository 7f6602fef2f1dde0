// What NVML's entry points share: the check of a call's device, texts.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#define NVML_NO_UNVERSIONED_FUNC_DEFS
#pragma GCC visibility push(default)
#include <nvml.h>
#pragma GCC visibility pop

#include <string>

#include "shim/nvml/devices.hpp"

namespace outboard::nvml {

bool initialised();

/// A text with its NUL into a buffer of `length`.
nvmlReturn_t put_text(char* out, unsigned length, const std::string& text);

/// Runs `body(const Device&)` with the device that the handle means.
template <typename Body>
nvmlReturn_t with_device(nvmlDevice_t handle, Body&& body) {
  if (!initialised()) return NVML_ERROR_UNINITIALIZED;
  const Device* device = nullptr;
  const nvmlReturn_t result = find_device(handle, &device);
  return result == NVML_SUCCESS ? body(*device) : result;
}

/// Writes what `value(const Device&)` says.
template <typename T, typename Value>
nvmlReturn_t put(nvmlDevice_t handle, T* out, Value&& value) {
  return with_device(handle, [&](const Device& device) {
    if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
    *out = static_cast<T>(value(device));
    return NVML_SUCCESS;
  });
}

}  // namespace outboard::nvml
