// NVML's start and end, the system's versions, and how devices are found.
// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <cstdio>
#include <cstring>
#include <string>

#include "nvml_api.hpp"

namespace softgpu {
namespace {

std::atomic<int> uses{0};
char handles[16];  // the address is the handle

}  // namespace

bool nvml_initialised() { return uses.load() > 0; }

int device_index(nvmlDevice_t handle) {
  auto offset = reinterpret_cast<const char*>(handle) - handles;
  return offset >= 0 && offset < config().devices ? static_cast<int>(offset) : -1;
}

nvmlDevice_t device_handle(int index) { return reinterpret_cast<nvmlDevice_t>(&handles[index]); }

nvmlReturn_t put_text(char* out, unsigned int length, const char* text) {
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if (length <= std::strlen(text)) return NVML_ERROR_INSUFFICIENT_SIZE;
  std::memcpy(out, text, std::strlen(text) + 1);
  return NVML_SUCCESS;
}

}  // namespace softgpu

using namespace softgpu;

extern "C" {

nvmlReturn_t nvmlInit_v2() {
  if (config().devices == 0) return NVML_ERROR_DRIVER_NOT_LOADED;
  uses.fetch_add(1);
  return NVML_SUCCESS;
}
nvmlReturn_t nvmlInit() { return nvmlInit_v2(); }
nvmlReturn_t nvmlInitWithFlags(unsigned int) { return nvmlInit_v2(); }
nvmlReturn_t nvmlShutdown() {
  int now = uses.load();
  while (now > 0) {
    if (uses.compare_exchange_weak(now, now - 1)) return NVML_SUCCESS;
  }
  return NVML_ERROR_UNINITIALIZED;
}

const char* nvmlErrorString(nvmlReturn_t result) {
  switch (result) {
    case NVML_SUCCESS:
      return "Success";
    case NVML_ERROR_UNINITIALIZED:
      return "Uninitialized";
    case NVML_ERROR_INVALID_ARGUMENT:
      return "Invalid Argument";
    case NVML_ERROR_NOT_SUPPORTED:
      return "Not Supported";
    case NVML_ERROR_NO_PERMISSION:
      return "Insufficient Permissions";
    case NVML_ERROR_NOT_FOUND:
      return "Not Found";
    case NVML_ERROR_INSUFFICIENT_SIZE:
      return "Insufficient Size";
    case NVML_ERROR_DRIVER_NOT_LOADED:
      return "Driver Not Loaded";
    case NVML_ERROR_TIMEOUT:
      return "Timeout";
    case NVML_ERROR_LIBRARY_NOT_FOUND:
      return "NVML Shared Library Not Found";
    case NVML_ERROR_FUNCTION_NOT_FOUND:
      return "Function Not Found";
    case NVML_ERROR_GPU_IS_LOST:
      return "GPU is lost";
    case NVML_ERROR_ARGUMENT_VERSION_MISMATCH:
      return "Argument version mismatch";
    default:
      return "Unknown Error";
  }
}

nvmlReturn_t nvmlSystemGetDriverVersion(char* out, unsigned int length) {
  return nvml_initialised() ? put_text(out, length, kNvmlDriverVersion) : NVML_ERROR_UNINITIALIZED;
}
nvmlReturn_t nvmlSystemGetNVMLVersion(char* out, unsigned int length) {
  return put_text(out, length, kNvmlVersion);
}
nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int* out) {
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *out = kDriverVersion;
  return NVML_SUCCESS;
}
nvmlReturn_t nvmlSystemGetCudaDriverVersion(int* out) {
  return nvmlSystemGetCudaDriverVersion_v2(out);
}
nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char* out, unsigned int length) {
  if (!nvml_initialised()) return NVML_ERROR_UNINITIALIZED;
  if (out == nullptr || length == 0) return NVML_ERROR_INVALID_ARGUMENT;
  FILE* file = std::fopen(("/proc/" + std::to_string(pid) + "/cmdline").c_str(), "r");
  if (file == nullptr) return NVML_ERROR_NOT_FOUND;
  size_t got = std::fread(out, 1, length - 1, file);  // arguments end with NUL: the first is kept
  std::fclose(file);
  out[got] = '\0';
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int* out) {
  if (!nvml_initialised()) return NVML_ERROR_UNINITIALIZED;
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *out = static_cast<unsigned>(config().devices);
  return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetCount(unsigned int* out) { return nvmlDeviceGetCount_v2(out); }

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t* out) {
  if (!nvml_initialised()) return NVML_ERROR_UNINITIALIZED;
  if (out == nullptr || index >= static_cast<unsigned>(config().devices)) {
    return NVML_ERROR_INVALID_ARGUMENT;
  }
  *out = device_handle(static_cast<int>(index));
  return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t* out) {
  return nvmlDeviceGetHandleByIndex_v2(index, out);
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char* uuid, nvmlDevice_t* out) {
  if (!nvml_initialised()) return NVML_ERROR_UNINITIALIZED;
  if (uuid == nullptr || out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  for (int i = 0; i < config().devices; ++i) {
    char own[NVML_DEVICE_UUID_V2_BUFFER_SIZE];
    nvmlDeviceGetUUID(device_handle(i), own, sizeof own);
    if (std::strcmp(own, uuid) != 0) continue;
    *out = device_handle(i);
    return NVML_SUCCESS;
  }
  return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char* bus_id, nvmlDevice_t* out) {
  if (!nvml_initialised()) return NVML_ERROR_UNINITIALIZED;
  unsigned domain = 0, bus = 0, slot = 0;
  if (bus_id == nullptr || out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if (std::sscanf(bus_id, "%x:%x:%x", &domain, &bus, &slot) != 3) {
    domain = 0;
    if (std::sscanf(bus_id, "%x:%x", &bus, &slot) != 2) return NVML_ERROR_INVALID_ARGUMENT;
  }
  for (int i = 0; i < config().devices; ++i) {
    if (domain != 0 || slot != 0 || static_cast<int>(bus) != identity(i).pci_bus) continue;
    *out = device_handle(i);
    return NVML_SUCCESS;
  }
  return NVML_ERROR_NOT_FOUND;
}
nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char* bus_id, nvmlDevice_t* out) {
  return nvmlDeviceGetHandleByPciBusId_v2(bus_id, out);
}

}  // extern "C"
