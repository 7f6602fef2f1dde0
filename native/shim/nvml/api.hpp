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

/// Writes what the device's server says, now.
template <typename T>
nvmlReturn_t ask_server(nvmlDevice_t device, wire::ManagementQuestion question, T* out,
                        unsigned first = 0, unsigned second = 0) {
  return with_device(device, [&](const Device& found) {
    uint64_t value = 0;
    if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
    const nvmlReturn_t result = ask(found, question, first, second, &value);
    if (result == NVML_SUCCESS) *out = static_cast<T>(value);
    return result;
  });
}

/// A place on a PCI bus, as a text too.
void put_pci(nvmlPciInfo_t* pci, int64_t domain, int64_t bus, int64_t device);

}  // namespace outboard::nvml
