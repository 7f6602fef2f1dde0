// NVML's start and end, its texts, the system's versions, and how devices are found.
// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <cstdio>
#include <cstring>

#include "shim/nvml/api.hpp"

namespace outboard::nvml {
namespace {

constinit std::atomic<int> uses{0};

struct ErrorText {
  nvmlReturn_t result;
  const char* sentence;
};
constexpr ErrorText error_texts[] = {
    {NVML_SUCCESS, "Success"},
    {NVML_ERROR_UNINITIALIZED, "Uninitialized"},
    {NVML_ERROR_INVALID_ARGUMENT, "Invalid Argument"},
    {NVML_ERROR_NOT_SUPPORTED, "Not Supported"},
    {NVML_ERROR_NO_PERMISSION, "Insufficient Permissions"},
    {NVML_ERROR_NOT_FOUND, "Not Found"},
    {NVML_ERROR_INSUFFICIENT_SIZE, "Insufficient Size"},
    {NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded"},
    {NVML_ERROR_TIMEOUT, "Timeout"},
    {NVML_ERROR_LIBRARY_NOT_FOUND, "NVML Shared Library Not Found"},
    {NVML_ERROR_FUNCTION_NOT_FOUND, "Function Not Found"},
    {NVML_ERROR_GPU_IS_LOST, "GPU is lost"},
    {NVML_ERROR_ARGUMENT_VERSION_MISMATCH, "Argument Version Mismatch"},
    {NVML_ERROR_INSUFFICIENT_RESOURCES, "Insufficient Resources"},
};

}  // namespace

bool initialised() { return uses.load() > 0; }

nvmlReturn_t put_text(char* out, unsigned length, const std::string& text) {
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if (length <= text.size()) return NVML_ERROR_INSUFFICIENT_SIZE;
  std::memcpy(out, text.c_str(), text.size() + 1);
  return NVML_SUCCESS;
}

}  // namespace outboard::nvml

using namespace outboard::nvml;

extern "C" {

nvmlReturn_t nvmlInit_v2() {
  const nvmlReturn_t result = open_session();
  if (result == NVML_SUCCESS) uses.fetch_add(1);
  return result;
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
  for (const ErrorText& text : error_texts) {
    if (text.result == result) return text.sentence;
  }
  return "Unknown Error";
}

// The driver is the servers'; its version is told by that of CUDA, which every release of it stands
// for.
nvmlReturn_t nvmlSystemGetDriverVersion(char* version, unsigned int length) {
  if (!initialised()) return NVML_ERROR_UNINITIALIZED;
  int cuda = 0;
  if (const nvmlReturn_t result = cuda_version(&cuda); result != NVML_SUCCESS) return result;
  return put_text(version, length,
                  cuda >= 13000   ? "580.65.06"
                  : cuda >= 12080 ? "570.86.10"
                                  : "550.54.14");
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char* version, unsigned int length) {
  int cuda = 0;
  if (!initialised()) return NVML_ERROR_UNINITIALIZED;
  if (const nvmlReturn_t result = cuda_version(&cuda); result != NVML_SUCCESS) return result;
  return put_text(version, length, std::to_string(cuda / 1000) + ".580.65.06");
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int* version) {
  if (!initialised()) return NVML_ERROR_UNINITIALIZED;
  return version != nullptr ? cuda_version(version) : NVML_ERROR_INVALID_ARGUMENT;
}
nvmlReturn_t nvmlSystemGetCudaDriverVersion(int* version) {
  return nvmlSystemGetCudaDriverVersion_v2(version);
}

nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char* name, unsigned int length) {
  char path[64], text[256] = {};
  std::snprintf(path, sizeof path, "/proc/%u/comm", pid);
  FILE* file = std::fopen(path, "re");
  if (file == nullptr) return NVML_ERROR_NOT_FOUND;
  const bool read = std::fgets(text, sizeof text, file) != nullptr;
  std::fclose(file);
  if (!read) return NVML_ERROR_NOT_FOUND;
  text[std::strcspn(text, "\n")] = 0;
  return put_text(name, length, text);
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int* count) {
  if (!initialised()) return NVML_ERROR_UNINITIALIZED;
  if (count == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *count = device_count();
  return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetCount(unsigned int* count) { return nvmlDeviceGetCount_v2(count); }

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t* device) {
  if (!initialised()) return NVML_ERROR_UNINITIALIZED;
  if (device == nullptr || index >= device_count()) return NVML_ERROR_INVALID_ARGUMENT;
  *device = handle_of(index);
  return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t* device) {
  return nvmlDeviceGetHandleByIndex_v2(index, device);
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char* uuid, nvmlDevice_t* device) {
  if (!initialised()) return NVML_ERROR_UNINITIALIZED;
  if (uuid == nullptr || device == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  for (unsigned index = 0; index < device_count(); ++index) {
    const Device* found = nullptr;
    const nvmlReturn_t result = find_device(handle_of(index), &found);
    if (result != NVML_SUCCESS) return result;
    if (found->uuid != uuid) continue;
    *device = handle_of(index);
    return NVML_SUCCESS;
  }
  return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char* bus_id, nvmlDevice_t* device) {
  if (!initialised()) return NVML_ERROR_UNINITIALIZED;
  unsigned domain = 0, bus = 0, number = 0;
  if (bus_id == nullptr || device == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if (std::sscanf(bus_id, "%x:%x:%x", &domain, &bus, &number) != 3) {
    domain = 0;
    if (std::sscanf(bus_id, "%x:%x", &bus, &number) != 2) return NVML_ERROR_INVALID_ARGUMENT;
  }
  for (unsigned index = 0; index < device_count(); ++index) {
    nvmlPciInfo_t info;
    const nvmlReturn_t result = nvmlDeviceGetPciInfo_v3(handle_of(index), &info);
    if (result != NVML_SUCCESS) return result;
    if (info.domain != domain || info.bus != bus || info.device != number) continue;
    *device = handle_of(index);
    return NVML_SUCCESS;
  }
  return NVML_ERROR_NOT_FOUND;
}
nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char* bus_id, nvmlDevice_t* device) {
  return nvmlDeviceGetHandleByPciBusId_v2(bus_id, device);
}

}  // extern "C"
